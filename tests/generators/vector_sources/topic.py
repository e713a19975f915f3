# SPDX-License-Identifier: MIT
"""Collects the vectors of a file. Each method adds a vector with its expected result.

The caller gives all expectations, including canonical bytes; only digests are computed, with the
blake3 package. make_vectors.py then compares the vectors with the reference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from blake3 import blake3

Violation = tuple[str, str]

BUILD_REQUEST = "build-request"
BUILD = "build"
DIRECTORY = "directory"
STEP = "step"
PLAN = "plan"

FIRST = "tvix.build.v1"
TVIX_2024 = "tvix.build.v1@2024"
SNIX = "snix.build.v1"


@dataclass(frozen=True)
class Vector:
    """An input and its expected result. `encoding` is None if there is none."""

    name: str
    about: str
    kind: str
    data: bytes
    encoding: bytes | None
    violations: tuple[Violation, ...]
    schema: str = FIRST
    request: bytes | None = None  # the request of a response

    @property
    def valid(self) -> bool:
        return not self.violations

    @property
    def canonical(self) -> bool:
        return self.valid and self.data == self.encoding

    def to_json(self) -> str:
        """Return the vector as a line. The order of the keys is part of the format."""
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
    """The vectors of the file `name`.json. Their kind is `kind`, unless a vector has another."""

    name: str
    kind: str
    about: str
    schema: str = FIRST
    source: str = ""  # the module of the vectors, if its name is not `name`
    request: bytes | None = None  # the request for vectors that are added from now on
    vectors: list[Vector] = field(default_factory=list)

    def canonical(self, name: str, about: str, data: bytes, kind: str = "") -> None:
        """Add a valid vector whose `data` is its canonical encoding."""
        self._add(name, about, kind, data, data, ())

    def other_bytes(
        self, name: str, about: str, data: bytes, encoding: bytes, kind: str = ""
    ) -> None:
        """Add a valid vector whose `data` is not its canonical `encoding`."""
        if data == encoding:
            raise ValueError(f"{name}: is canonical")
        self._add(name, about, kind, data, encoding, ())

    def unsorted(
        self, name: str, about: str, data: bytes, encoding: bytes, *paths: str, kind: str = ""
    ) -> None:
        """Add an invalid vector with not_sorted at `paths`, which has a canonical `encoding`."""
        violations = tuple(("not_sorted", path) for path in paths)
        self._add(name, about, kind, data, encoding, violations)

    def refused(
        self, name: str, about: str, data: bytes, *violations: Violation, kind: str = ""
    ) -> None:
        """Add an invalid vector with `violations` and without a canonical encoding."""
        if not any(code != "not_sorted" for code, _ in violations):
            raise ValueError(f"{name}: nothing forbids its encoding")
        self._add(name, about, kind, data, None, violations)

    def malformed(self, name: str, about: str, data: bytes, kind: str = "") -> None:
        """Add a vector that does not decode."""
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
