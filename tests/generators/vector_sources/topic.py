# SPDX-License-Identifier: MIT
"""A file of vectors in the making: each method adds one vector with what is expected of it.

Expectations come from the caller alone, canonical bytes included; only digests are computed
(PyPI's blake3). make_vectors.py then holds them against the reference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from blake3 import blake3

Violation = tuple[str, str]

BUILD_REQUEST = "build-request"
BUILD = "build"
DIRECTORY = "directory"

FIRST = "tvix.build.v1"
TVIX_2024 = "tvix.build.v1@2024"
SNIX = "snix.build.v1"


@dataclass(frozen=True)
class Vector:
    """One input and what the rules say of it; `encoding` is None where it is refused."""

    name: str
    about: str
    kind: str
    data: bytes
    encoding: bytes | None
    violations: tuple[Violation, ...]
    schema: str = FIRST
    request: bytes | None = None  # to which `data` is a response

    @property
    def valid(self) -> bool:
        return not self.violations

    @property
    def canonical(self) -> bool:
        return self.valid and self.data == self.encoding

    def to_json(self) -> str:
        """One line; the order of its keys is part of the format."""
        encoding = self.encoding
        schema = {} if self.schema == FIRST else {"schema": self.schema}
        request = {} if self.request is None else {"request_hex": self.request.hex()}
        return json.dumps(
            {
                "name": self.name,
                "about": self.about,
                "kind": self.kind,
                **schema,
                "hex": self.data.hex(),
                **request,
                "valid": self.valid,
                "canonical": self.canonical,
                "digest": None if encoding is None else blake3(encoding).hexdigest(),
                "canonical_hex": None if encoding is None else encoding.hex(),
                "violations": self.violations,
            }
        )


@dataclass
class Topic:
    """The vectors of one file, `name`.json; of messages of `kind` unless a vector says another."""

    name: str
    kind: str
    about: str
    schema: str = FIRST
    source: str = ""  # the module that makes them, if `name` is not its name
    request: bytes | None = None  # the request of vectors that are added from now on
    vectors: list[Vector] = field(default_factory=list)

    def canonical(self, name: str, about: str, data: bytes, kind: str = "") -> None:
        """Valid, and `data` is its own canonical encoding."""
        self._add(name, about, kind, data, data, ())

    def other_bytes(
        self, name: str, about: str, data: bytes, encoding: bytes, kind: str = ""
    ) -> None:
        """Valid, but `data` is not its canonical `encoding`."""
        if data == encoding:
            raise ValueError(f"{name}: is canonical")
        self._add(name, about, kind, data, encoding, ())

    def unsorted(
        self, name: str, about: str, data: bytes, encoding: bytes, *paths: str, kind: str = ""
    ) -> None:
        """Only not_sorted, at `paths`: not valid, but has an `encoding`."""
        violations = tuple(("not_sorted", path) for path in paths)
        self._add(name, about, kind, data, encoding, violations)

    def refused(
        self, name: str, about: str, data: bytes, *violations: Violation, kind: str = ""
    ) -> None:
        """Has `violations` that leave no canonical encoding."""
        if not any(code != "not_sorted" for code, _ in violations):
            raise ValueError(f"{name}: nothing forbids its encoding")
        self._add(name, about, kind, data, None, violations)

    def malformed(self, name: str, about: str, data: bytes, kind: str = "") -> None:
        """Does not decode."""
        self._add(name, about, kind, data, None, (("malformed", ""),))

    def _add(
        self,
        name: str,
        about: str,
        kind: str,
        data: bytes,
        encoding: bytes | None,
        violations: tuple[Violation, ...],
    ) -> None:
        if any(vector.name == name for vector in self.vectors):
            raise ValueError(f"{self.name}: {name} is there already")
        self.vectors.append(
            Vector(
                name,
                about,
                kind or self.kind,
                data,
                encoding,
                violations,
                self.schema,
                self.request,
            )
        )
