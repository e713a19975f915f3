# SPDX-License-Identifier: MIT
"""What MODULE.bazel uses, with Bazel 7 and later; Bazel 4.2.3 knows no module extensions."""

load(":repositories.bzl", "DEVELOPMENT_REPOSITORIES", "REPOSITORIES", "define_repositories")

def _repositories_impl(_ctx):
    define_repositories(REPOSITORIES)

repositories = module_extension(implementation = _repositories_impl)

def _development_repositories_impl(_ctx):
    define_repositories(DEVELOPMENT_REPOSITORIES)

development_repositories = module_extension(implementation = _development_repositories_impl)
