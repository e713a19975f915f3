# SPDX-License-Identifier: MIT
"""Print a BUILD file with a py_library for each distribution in a directory of pip."""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

HEADER = """\
load("@rules_python//python:defs.bzl", "py_library")

package(default_visibility = ["//visibility:public"])

exports_files(["site-packages"] + glob(["site-packages/bin/*"], allow_empty = True))

# All distributions as one directory, for distributions with thousands of files.
py_library(
    name = "packages",
    data = ["site-packages"],
    imports = ["site-packages"],
    deps = [CHECK],
)
"""


def target_name(requirement: str) -> str:
    """Return ``foo_bar`` for a requirement such as ``Foo.Bar[x]>=1; python_version < "3.11"``."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, f"not a requirement: {requirement!r}"
    return re.sub(r"[-_.]+", "_", match.group()).lower()


def required(distribution: Distribution, known: set[str]) -> list[str]:
    """Return the targets that a distribution needs without its extras."""
    names = {target_name(line) for line in distribution.requires or [] if "extra ==" not in line}
    return sorted(names & known)


def listed(files: list[PurePosixPath]) -> list[PurePosixPath]:
    """Return the source files; for a file with a space, its directory: runfiles allow no spaces."""
    opaque = {file.parent for file in files if " " in str(file)}
    return sorted(
        {next((parent for parent in file.parents if parent in opaque), file) for file in files}
    )


def library(distribution: Distribution, packages: str, known: set[str], check: str) -> str:
    """Return the py_library of a distribution.

    Args:
        distribution: the distribution.
        packages: the directory in the repository.
        known: the targets of all distributions.
        check: the target that checks the version of Python.

    Returns:
        The text for a BUILD file.
    """
    # Scripts are recorded as ../../bin/NAME, but are in the directory itself.
    recorded = (PurePosixPath(str(file)) for file in distribution.files or [])
    files = [file for file in recorded if ".." not in file.parts and file.suffix != ".pyc"]
    paths = [f"{packages}/{path}" for path in listed(files)]
    sources = [path for path in paths if path.endswith(".py")]
    data = [path for path in paths if not path.endswith(".py")]
    deps = [f":{name}" for name in required(distribution, known)]
    if any(".cpython-" in path for path in data):  # for one version of Python
        deps.append(check)
    lines = [
        "py_library(",
        f"    name = {target_name(distribution.metadata['Name'])!r},",
        f"    srcs = {sources!r},",
        f"    data = {data!r},",
        f"    imports = [{packages!r}],",
        f"    deps = {deps!r},",
        ")",
    ]
    return "\n".join(lines)


def main() -> None:
    """Write the BUILD file: arguments are the directory, the target that checks the version, and
    the lock file."""
    directory, check, lock = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    installed = distributions(path=[str(directory)])
    found = {target_name(item.metadata["Name"]): item for item in installed}
    print(HEADER.replace("CHECK", repr(check)))
    for name in sorted(found):
        print(library(found[name], directory.name, set(found), check), end="\n\n")
    locked = {target_name(line) for line in lock.read_text().splitlines() if line[:1].isalnum()}
    for name in sorted(locked - set(found)):  # This Python does not need it.
        print(f"py_library(name = {name!r})", end="\n\n")


if __name__ == "__main__":
    main()
