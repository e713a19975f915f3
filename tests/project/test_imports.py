# SPDX-License-Identifier: MIT
"""The direction of imports within the package, read from the sources.

All import statements count, also those in functions and for type checking only.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest

import tvix_build

Imports: TypeAlias = "dict[str, set[str]]"


class Room(NamedTuple):
    """Modules that belong together. A module belongs to the room with the longest prefix."""

    prefixes: tuple[str, ...]
    may_import: tuple[str, ...]


ROOMS = {
    "core": Room(("tvix_build._core", "tvix_build._native", "tvix_build._version"), ()),
    "public": Room(("tvix_build",), ("core",)),
    "castore": Room(("tvix_build.castore",), ("core",)),
    "castore.client": Room(
        ("tvix_build.castore.client", "tvix_build.castore.backed"),
        ("core", "public", "castore", "proxy.shared"),
    ),
    "builders": Room(("tvix_build.builders",), ("core", "castore", "proxy.shared")),
    "builders.derivations": Room(
        ("tvix_build.builders.derivations",), ("core", "builders", "castore", "nix")
    ),
    "builders.caching": Room(
        ("tvix_build.builders.caching",), ("core", "builders", "castore", "store")
    ),
    "builders.server": Room(
        ("tvix_build.builders.server",),
        ("core", "builders", "castore", "castore.client", "proxy.client", "proxy.shared"),
    ),
    "nix": Room(("tvix_build.nix",), ("core", "castore")),
    "plan": Room(
        ("tvix_build.plan",),
        (
            "core",
            "builders",
            "builders.caching",
            "castore",
            "nix",
            "plan.messages",
            "proxy.shared",
            "store",
        ),
    ),
    "plan.messages": Room(("tvix_build.plan.v1",), ()),
    "store": Room(("tvix_build.store",), ("core", "builders")),
    "proxy": Room(
        ("tvix_build.proxy",),
        (
            "core",
            "public",
            "builders",
            "castore",
            "plan",
            "plan.messages",
            "store",
            "proxy.shared",
        ),
    ),
    "proxy.client": Room(("tvix_build.proxy.client",), ("core", "public", "proxy.shared")),
    "proxy.shared": Room(("tvix_build.proxy.shared",), ("core",)),
    "records": Room(("tvix_build.records",), ("core", "plan.messages")),
    "cli": Room(
        ("tvix_build.cli", "tvix_build.__main__"),
        (
            "core",
            "public",
            "builders",
            "builders.caching",
            "builders.derivations",
            "builders.server",
            "castore",
            "castore.client",
            "nix",
            "plan",
            "plan.messages",
            "store",
            "proxy",
            "proxy.client",
            "proxy.shared",
            "records",
        ),
    ),
    "duckdb": Room(("tvix_build.duckdb",), ("core",)),
    "polars": Room(("tvix_build.polars",), ("core",)),
    "spark": Room(("tvix_build.spark",), ("core", "public")),
}


def read_imports(package: Path) -> Imports:
    """Return the modules of a package, each with the modules of the package that it imports."""
    files = {}
    for file in sorted(package.rglob("*.py*")):
        if file.suffix in (".py", ".pyi"):
            parts = file.relative_to(package.parent).with_suffix("").parts
            files[".".join(parts).removesuffix(".__init__")] = file
    return {name: _imported(file, files) - {name} for name, file in files.items()}


def _imported(file: Path, modules: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: expected an absolute import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in modules:
                name = name.rpartition(".")[0]
            found.add(name)
    return found - {""}


def find_circles(imports: Imports) -> list[set[str]]:
    """Return the largest sets of modules that all import each other, directly or indirectly."""
    reachable: Imports = {}
    for name in imports:
        reached: set[str] = set()
        waiting = [name]
        while waiting:
            new = imports[waiting.pop()] - reached
            reached |= new
            waiting += new
        reachable[name] = reached
    circles: list[set[str]] = []
    for name, reached in reachable.items():
        if name in reached and not any(name in circle for circle in circles):
            circles.append({other for other in reached if name in reachable[other]})
    return circles


def room_of(module: str) -> str:
    """Return the room of a module."""
    prefixes = {prefix: room for room in ROOMS for prefix in ROOMS[room].prefixes}
    matching = [prefix for prefix in prefixes if f"{module}.".startswith(f"{prefix}.")]
    return prefixes[max(matching, key=len)]


@pytest.fixture(scope="module")
def imports() -> Imports:
    """The imports of tvix_build."""
    return read_imports(Path(tvix_build.__file__).parent)


def test_rooms_import_only_what_they_may(imports: Imports) -> None:
    wrong = [
        f"{module} ({room}) imports {other} ({room_of(other)})"
        for module, others in imports.items()
        for other in sorted(others)
        if room_of(other) not in ((room := room_of(module)), *ROOMS[room].may_import)
    ]
    assert wrong == []


def test_each_prefix_of_a_room_has_a_module(imports: Imports) -> None:
    for room in ROOMS.values():
        for prefix in room.prefixes:
            assert any(f"{module}.".startswith(f"{prefix}.") for module in imports), prefix


def test_no_modules_import_each_other(imports: Imports) -> None:
    assert find_circles(imports) == []


def test_imports_of_every_kind_are_found(tmp_path: Path) -> None:
    package = tmp_path / "one"
    (package / "inner").mkdir(parents=True)
    for name, text in {
        "__init__.py": "import os\nfrom one import b\n",
        "a.py": "if TYPE_CHECKING:\n    from one.b import name\n",
        "b.py": "def f():\n    import one.inner.c as c, sys\n",
        "inner/__init__.py": "",
        "inner/c.py": "from one import a\nfrom one import inner\n",
        "d.pyi": "from one import __version__\nfrom onehundred import a\n",
    }.items():
        (package / name).write_text(text)
    imports = read_imports(package)
    assert imports == {
        "one": {"one.b"},
        "one.a": {"one.b"},
        "one.b": {"one.inner.c"},
        "one.inner": set(),
        "one.inner.c": {"one.a", "one.inner"},
        "one.d": {"one"},
    }
    assert find_circles(imports) == [{"one.a", "one.b", "one.inner.c"}]
