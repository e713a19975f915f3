# SPDX-License-Identifier: MIT
"""The mutants of the tree, and those that are known to survive."""

from __future__ import annotations

import sys
from pathlib import Path

from mutation.c_mutants import mutants_of_c
from mutation.mutant import Mutant, number_repeated
from mutation.python_mutants import mutants_of_python

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TREE = Path(__file__).absolute().parents[2]
SURVIVORS = Path("tests", "mutation", "survivors.toml")


def source_files(tree: Path) -> list[str]:
    """Return the files to mutate, relative to the tree: the C core and the Python package."""
    c = [path for path in (tree / "native").rglob("*") if path.suffix in (".c", ".h")]
    python = (tree / "py" / "tvix_build").rglob("*.py")
    return sorted(path.relative_to(tree).as_posix() for path in (*c, *python))


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Return the mutants of a file. Their names may repeat."""
    return (mutants_of_python if file.endswith(".py") else mutants_of_c)(file, source)


def all_mutants(tree: Path) -> list[Mutant]:
    """Return all mutants of a tree in the order of files and lines, with unique names."""
    return number_repeated(
        mutant
        for file in source_files(tree)
        for mutant in mutants_of(file, (tree / file).read_text())
    )


def read_survivors(tree: Path) -> dict[str, str]:
    """Return the names of the mutants that are known to survive, with the reasons."""
    found: dict[str, str] = {}
    for entry in tomllib.loads((tree / SURVIVORS).read_text())["survivor"]:
        for name in entry["mutants"]:
            if name in found:
                raise ValueError(f"{SURVIVORS}: {name!r} is listed twice")
            found[name] = entry["reason"]
    return found
