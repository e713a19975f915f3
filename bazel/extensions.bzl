# SPDX-License-Identifier: MIT
"""The module extensions of MODULE.bazel, for Bazel 7 and later. Bazel 4.2.3 has no module extensions."""

load(":repositories.bzl", "DEVELOPMENT_REPOSITORIES", "REPOSITORIES", "define_repositories")

def _repositories_impl(_ctx):
    define_repositories(REPOSITORIES)

repositories = module_extension(implementation = _repositories_impl)

def _development_repositories_impl(_ctx):
    define_repositories(DEVELOPMENT_REPOSITORIES)

development_repositories = module_extension(implementation = _development_repositories_impl)
