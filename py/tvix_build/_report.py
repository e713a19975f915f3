# SPDX-License-Identifier: MIT
"""What is said of a message: kinds, violations, reports and errors. Plain data; nothing is checked
here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias


class Kind(str, Enum):
    """What a message is."""

    BUILD_REQUEST = "build-request"
    BUILD = "build"
    DIRECTORY = "directory"

    @property
    def full_name(self) -> str:
        """The full protobuf name, such as `tvix.build.v1.BuildRequest`."""
        return _FULL_NAMES[self]


_FULL_NAMES = {
    Kind.BUILD_REQUEST: "tvix.build.v1.BuildRequest",
    Kind.BUILD: "tvix.build.v1.Build",
    Kind.DIRECTORY: "tvix.castore.v1.Directory",
}


class Schema(str, Enum):
    """A version of the protocol."""

    TVIX_BUILD_V1 = "tvix.build.v1"
    """December 2023."""
    TVIX_BUILD_V1_2024 = "tvix.build.v1@2024"
    """October 2024. Its messages are bytes only, as their names are those of the first version."""
    SNIX_BUILD_V1 = "snix.build.v1"
    """2025 and on."""


TvixSchema: TypeAlias = Literal["tvix.build.v1", Schema.TVIX_BUILD_V1]
SnixSchema: TypeAlias = Literal["snix.build.v1", Schema.SNIX_BUILD_V1]
BytesSchema: TypeAlias = Literal["tvix.build.v1@2024", Schema.TVIX_BUILD_V1_2024]


class ViolationCode(str, Enum):
    """Which rule a message violates; docs/canonical-form.md defines each. The strings are
    stable."""

    MALFORMED = "malformed"
    UNKNOWN_FIELD = "unknown_field"
    REQUIRED = "required"
    INVALID_ARG = "invalid_arg"
    INVALID_NAME = "invalid_name"
    INVALID_DIGEST = "invalid_digest"
    INVALID_SYMLINK_TARGET = "invalid_symlink_target"
    INVALID_ENV_KEY = "invalid_env_key"
    INVALID_ENV_VALUE = "invalid_env_value"
    INVALID_PATH = "invalid_path"
    NOT_SORTED = "not_sorted"
    DUPLICATE = "duplicate"
    OUTPUT_IS_INPUT = "output_is_input"
    MISSING_OUTPUT = "missing_output"
    UNEXPECTED_OUTPUT = "unexpected_output"
    SIZE_OVERFLOW = "size_overflow"


@dataclass(frozen=True)
class Violation:
    """One violated rule."""

    code: ViolationCode
    path: str
    """Field path with list indices as received, such as `inputs[3].file.name`; `""` is the message
    itself."""
    message: str
    """For people: what was expected and what was found."""


@dataclass(frozen=True)
class Report:
    """All that is known of one message."""

    valid: bool
    """No rule is violated."""
    canonical: bool
    """Valid, and its bytes are its canonical encoding."""
    digest: bytes | None
    """BLAKE3-256 of the canonical encoding, 32 bytes; None where that is refused: there is a
    violation other than `not_sorted`."""
    violations: tuple[Violation, ...]
    """In the order of the path; the first 100 of them."""
    violation_count: int
    """How many violations there are in truth."""


class Error(Exception):
    """Base class of what this package raises for bad data."""


class InvalidMessage(Error, ValueError):  # noqa: N818 - the name says what was found
    """A message violates rules.

    Attributes:
        violations: the first 100 of them, in the order of the path.
        violation_count: how many there are in truth.
        index: which message of a batch it is, None for a single one.
    """

    def __init__(
        self, violations: Sequence[Violation], violation_count: int, index: int | None = None
    ) -> None:
        super().__init__(violations, violation_count, index)
        self.violations: tuple[Violation, ...] = tuple(violations)
        self.violation_count = violation_count
        self.index = index

    def __str__(self) -> str:
        where = "" if self.index is None else f"message {self.index}: "
        first = self.violations[0]
        path = f"{first.path}: " if first.path else ""
        more = self.violation_count - 1
        rest = f" (and {more} more violation{'s' if more > 1 else ''})" if more else ""
        return f"{where}{path}{first.code.value}: {first.message}{rest}"


@dataclass(frozen=True)
class Reason:
    """Why a request cannot be said in another schema."""

    path: str
    """Field path in the request, with list indices, such as `outputs[2]`."""
    message: str
    """For people: what was expected and what was found."""


class NotRepresentable(Error, ValueError):  # noqa: N818 - the name says what was found
    """A valid request says something that another schema cannot say.

    Attributes:
        reasons: all that stands against it, in the order of the fields.
    """

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__(reasons)
        self.reasons: tuple[Reason, ...] = tuple(reasons)

    def __str__(self) -> str:
        return "; ".join(f"{one.path}: {one.message}" for one in self.reasons)


def refusal(report: Report, index: int | None = None) -> InvalidMessage:
    """Why a message has no canonical encoding: all its violations but `not_sorted`, which the
    encoding mends."""
    forbidding = [v for v in report.violations if v.code != ViolationCode.NOT_SORTED]
    others = len(report.violations) - len(forbidding)
    return InvalidMessage(forbidding, report.violation_count - others, index)
