# SPDX-License-Identifier: MIT
"""The type of a derivation, and its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar, Union

from tvix_build._core.report import Error

Found = TypeVar("Found")
Lookup = Union[Mapping[str, Found], Callable[[str], Union[Found, None]]]  # noqa: UP007
"""A lookup by store path: a mapping, or a function that returns None for an unknown path."""

STORE = "/nix/store/"


class DerivationError(Error, ValueError):
    """A derivation cannot be read or is invalid, or a request cannot represent it.

    Attributes:
        derivation: the store path or the file of the derivation; its name if neither is known.
        reasons: all reasons, each with what was expected and what was found.
    """

    def __init__(self, derivation: str, reasons: Iterable[str]) -> None:
        self.derivation = derivation
        self.reasons: tuple[str, ...] = tuple(reasons)
        super().__init__(derivation, self.reasons)

    def __str__(self) -> str:
        return f"{self.derivation}: {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Output:
    """An output of a derivation."""

    path: str
    """The store path; empty if it is unknown before the build, because the output or an input is
    content-addressed."""
    hash_algorithm: str = ""
    """The algorithm of a fixed or a content-addressed output, such as `sha256` for a file and
    `r:sha256` for any file system object."""
    hash: str = ""
    """The hash of a fixed output, in lowercase base 16; `impure` if the output may change with each
    build."""


@dataclass(frozen=True)
class Derivation:
    """A derivation. Mappings keep the order of the text, which Nix writes sorted."""

    # hash=False is for dataclasses that are derived from this one.
    outputs: Mapping[str, Output] = field(hash=False)
    """The outputs by name, such as `out` and `dev`."""
    input_derivations: Mapping[str, tuple[str, ...]] = field(hash=False)
    """The store path of each input derivation, with the names of the outputs that are used."""
    input_sources: tuple[str, ...]
    """The store paths of input sources."""
    system: str
    builder: str
    arguments: tuple[str, ...]
    environment: Mapping[str, bytes] = field(hash=False)
    path: str = ""
    """The store path of the derivation, or the file it was read from; empty if unknown."""

    def __hash__(self) -> int:
        # The order of mappings does not matter for equality.
        mappings = self.outputs, self.input_derivations, self.environment
        others = self.input_sources, self.system, self.builder, self.arguments, self.path
        return hash((*(frozenset(one.items()) for one in mappings), *others))

    def __getstate__(self) -> tuple[dict[str, object], frozenset[str]]:
        # A MappingProxyType cannot be copied or pickled.
        state = vars(self).copy()
        proxies = frozenset(
            name for name, value in state.items() if isinstance(value, MappingProxyType)
        )
        return state | {name: dict(state[name]) for name in proxies}, proxies

    def __setstate__(self, state: tuple[dict[str, Any], frozenset[str]]) -> None:
        values, proxies = state
        vars(self).update(values)
        vars(self).update((name, MappingProxyType(values[name])) for name in proxies)

    @property
    def name(self) -> str:
        """The name in errors: the path, or else the variable `name`."""
        name = self.environment.get("name", b"derivation")
        return self.path or name.decode(errors="backslashreplace")
