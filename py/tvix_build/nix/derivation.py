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
"""What is known by store path: a mapping, or a function that returns None for what it lacks."""

STORE = "/nix/store/"


class DerivationError(Error, ValueError):
    """A derivation that cannot be read, or that no request can say.

    Attributes:
        derivation: its store path or file; its name where neither is known.
        reasons: all that is wrong, each with what was expected and what was found.
    """

    def __init__(self, derivation: str, reasons: Iterable[str]) -> None:
        self.derivation = derivation
        self.reasons: tuple[str, ...] = tuple(reasons)
        super().__init__(derivation, self.reasons)

    def __str__(self) -> str:
        return f"{self.derivation}: {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Output:
    """What a derivation makes."""

    path: str
    """Its store path; empty where that is not known before the build, as the output or an input is
    addressed by its content."""
    hash_algorithm: str = ""
    """Of an output whose content is fixed, such as `sha256` for a file and `r:sha256` for anything;
    also of one that is addressed by its content."""
    hash: str = ""
    """Of an output whose content is fixed, in lowercase base 16; `impure` says that it never
    is."""


@dataclass(frozen=True)
class Derivation:
    """A derivation. Mappings keep the order of the text, which is sorted where Nix wrote it."""

    # hash=False: of use to dataclasses that are derived from this one.
    outputs: Mapping[str, Output] = field(hash=False)
    """By name, such as `out` and `dev`."""
    input_derivations: Mapping[str, tuple[str, ...]] = field(hash=False)
    """Store path of a derivation to the names of those of its outputs that this one uses."""
    input_sources: tuple[str, ...]
    """Store paths."""
    system: str
    builder: str
    arguments: tuple[str, ...]
    environment: Mapping[str, bytes] = field(hash=False)
    path: str = ""
    """Its own store path, or the file it was read from; empty where not known."""

    def __hash__(self) -> int:
        # Mappings are equal in any order.
        mappings = self.outputs, self.input_derivations, self.environment
        others = self.input_sources, self.system, self.builder, self.arguments, self.path
        return hash((*(frozenset(one.items()) for one in mappings), *others))

    def __getstate__(self) -> tuple[dict[str, object], frozenset[str]]:
        # A read-only mapping can be neither copied nor pickled.
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
        """What errors call it: its path, or else its variable `name`."""
        name = self.environment.get("name", b"derivation")
        return self.path or name.decode(errors="backslashreplace")
