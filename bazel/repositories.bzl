# SPDX-License-Identifier: MIT
"""The project's own repositories, for WORKSPACE files (workspace.bzl) and for modules (extensions.bzl)."""

load(":blake3_repository.bzl", "blake3_repository")
load(":buildifier_repository.bzl", "buildifier_repository")
load(":metadata_repository.bzl", "metadata_repository")
load(":npm.bzl", "npm_repository")
load(":pip_repository.bzl", "pip_repository")
load(":python_repository.bzl", "python_repository")
load(":shared_data_repository.bzl", "shared_data_repository")

def _pip(purpose, **attributes):
    return (pip_repository, dict(attributes, lock = Label("//requirements:%s.txt" % purpose)))

# The repositories that public targets and macros need: for each name, a rule and its attributes. Bazel fetches a
# repository only if it is used; only pytest_tests uses tvix_build_pip_test.
_REPOSITORIES = {
    "tvix_build_metadata": (metadata_repository, {"version_file": Label("//py/tvix_build:_version.py")}),
    "tvix_build_pip_generate": _pip("generate"),
    "tvix_build_pip_runtime": _pip("runtime"),
    "tvix_build_pip_serve": _pip("serve"),
    "tvix_build_pip_test": _pip("test"),
}

# Repositories that only the project's own tests need.
DEVELOPMENT_REPOSITORIES = {
    "shared": (shared_data_repository, {}),
    "tvix_build_blake3": (blake3_repository, {}),
    "tvix_build_buildifier": (buildifier_repository, {}),
    "tvix_build_node_client": (npm_repository, {
        "lock": Label("//tests:consumers/node/package-lock.json"),
        "package": Label("//tests:consumers/node/package.json"),
    }),
    "tvix_build_pip_arrow": _pip("arrow"),
    # Programs, which need no Python: the same wheel for all.
    "tvix_build_pip_buildbox": _pip("buildbox", platform = "manylinux_2_28_x86_64", python_version = "3.11"),
    "tvix_build_pip_docs": _pip("docs"),
    "tvix_build_pip_lint": _pip("lint"),
    "tvix_build_pip_pyright": _pip("pyright"),
    "tvix_build_pip_spark": _pip(
        "spark",
        setuptools = Label("@tvix_build_pip_generate//:site-packages/setuptools/__init__.py"),
        sources = ["pyspark"],
    ),
}

def public_repositories(python = None):
    """Return the repositories that public targets and macros need.

    Args:
      python: label of the interpreter for which packages are installed, or None.

    Returns:
      A dictionary like those above.
    """
    return dict(_REPOSITORIES, tvix_build_python = (python_repository, {"interpreter": python}))

def define_repositories(repositories, defined = []):
    """Define repositories.

    Args:
      repositories: one of the dictionaries above.
      defined: names to leave out, as they have a repository.
    """
    for name, (repository, attributes) in repositories.items():
        if name not in defined:
            repository(name = name, **attributes)
