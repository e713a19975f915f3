# SPDX-License-Identifier: MIT
"""What is said of a message: kinds, violations, reports and errors. Plain data; nothing is checked
here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Protocol, TypeAlias

if TYPE_CHECKING:
    from google.rpc.error_details_pb2 import BadRequest

NULL = "expected a message, found null"
"""Why a null in a table is malformed."""


class Choice(str, Enum):
    """An enumeration whose members are their strings, as those of enum.StrEnum (Python 3.11)."""

    __str__ = str.__str__

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        *others, last = [repr(choice.value) for choice in cls]
        choices = f"{', '.join(others)} or {last}"
        raise ValueError(f"expected a {cls.__name__}: {choices}; found {value!r}")


class Schema(Choice):
    """A version of the protocol. A member is also its string."""

    TVIX_BUILD_V1 = "tvix.build.v1"
    """Of December 2023, the default."""
    TVIX_BUILD_V1_2024 = "tvix.build.v1@2024"
    """The last tvix, of October 2024: other field numbers under the same names, so bytes only."""
    SNIX_BUILD_V1 = "snix.build.v1"
    """Of 2025 and on."""


TvixSchema: TypeAlias = Literal["tvix.build.v1", Schema.TVIX_BUILD_V1]
SnixSchema: TypeAlias = Literal["snix.build.v1", Schema.SNIX_BUILD_V1]
BytesSchema: TypeAlias = Literal["tvix.build.v1@2024", Schema.TVIX_BUILD_V1_2024]
SchemaLike: TypeAlias = Schema | Literal["tvix.build.v1", "tvix.build.v1@2024", "snix.build.v1"]
"""What functions accept as a schema: a type checker reports a misspelt string."""


class Kind(Choice):
    """What a message is. A member is also its string."""

    BUILD_REQUEST = "build-request"
    BUILD = "build"
    """What came of a request: a Build, a BuildResponse in snix.build.v1."""
    DIRECTORY = "directory"

    @property
    def full_name(self) -> str:
        """The full protobuf name in tvix.build.v1, such as `tvix.build.v1.BuildRequest`."""
        return message_type(self).full_name


KindLike: TypeAlias = Kind | Literal["build-request", "build", "directory"]
"""What functions accept as a kind: a type checker reports a misspelt string."""


class MessageType:
    """A kind of message in a schema; there is one object for each. Not public.

    Attributes:
        full_name: how the engine calls it: the schema, which may end in a year, and the protobuf
            name.
    """

    def __init__(self, kind: Kind, schema: Schema, full_name: str) -> None:
        self.kind = kind
        self.schema = schema
        self.full_name = full_name

    def __repr__(self) -> str:
        return self.full_name

    @property
    def title(self) -> str:
        """The package and the name, such as `snix.build.v1 BuildRequest`."""
        package, _, name = self.full_name.rpartition(".")
        return f"{package} {name}"


TYPES: tuple[MessageType, ...] = tuple(
    MessageType(kind, schema, name)
    for schema, names in {
        Schema.TVIX_BUILD_V1: (
            "tvix.build.v1.BuildRequest",
            "tvix.build.v1.Build",
            "tvix.castore.v1.Directory",
        ),
        Schema.TVIX_BUILD_V1_2024: (
            "tvix.build.v1@2024.BuildRequest",
            "tvix.build.v1@2024.Build",
            "tvix.castore.v1.Directory",
        ),
        Schema.SNIX_BUILD_V1: (
            "snix.build.v1.BuildRequest",
            "snix.build.v1.BuildResponse",
            "snix.castore.v1.Directory",
        ),
    }.items()
    for kind, name in zip(Kind, names, strict=True)
)
_TYPES = {(found.kind, found.schema): found for found in TYPES}


def message_type(kind: Kind | None = None, schema: Schema | None = None) -> MessageType:
    """The kind in the schema; by default a BuildRequest, and the first schema."""
    return _TYPES[kind or Kind.BUILD_REQUEST, schema or Schema.TVIX_BUILD_V1]


class ViolationCode(Choice):
    """Which rule a message violates; docs/canonical-form.md defines each. A member is also its
    string; the strings are stable."""

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
    INVALID_NEEDLE = "invalid_needle"
    NEEDLES_MISMATCH = "needles_mismatch"


@dataclass(frozen=True)
class Violation:
    """One violated rule."""

    code: ViolationCode
    path: str
    """Field path with list indices as received, such as `inputs[3].file.name`; `""` is the message
    itself."""
    message: str
    """For people: what was expected and what was found."""

    def __str__(self) -> str:
        return sentence(self.path, self.code, self.message)


@dataclass(frozen=True, repr=False)
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
    """The total number of violations."""
    _source: ClassVar[partial[str | None] | None] = None
    """Finds the hint, for a single message whose bytes may be of another type."""

    @cached_property
    def hint(self) -> str | None:
        """As what the bytes decode, if they are malformed or have unknown fields as the expected
        kind and schema, and are a message of others: the arguments to pass. The other types are
        tried when the hint is read. None for messages, and in a batch, which keeps no bytes."""
        return self._source() if self._source else None

    def __getstate__(self) -> dict[str, Any]:
        """The attributes with the hint, in place of the bytes that tell it."""
        return {**vars(self), "hint": self.hint, "_source": None}

    def __bool__(self) -> NoReturn:
        """Raise, since `if check(message)` may ask whether there is a report or whether the message
        is valid.

        Raises:
            TypeError: always.
        """
        raise TypeError("a Report is neither true nor false; use report.valid")

    def __repr__(self) -> str:
        parts = [f"digest {short_hex(self.digest)}"] if self.digest else []
        if self.violations:
            parts.append(summary(self))
        return f"<Report: {', '.join([state(self), *parts])}>"

    def _repr_html_(self) -> str:
        from tvix_build._core.html import table

        digest = self.digest.hex() if self.digest else ""
        rows = ((one.path, one.code, one.message) for one in self.violations)
        return table(state(self), digest, ("path", "code", "message"), rows, self.violation_count)


class Violations(Protocol):
    """What has the violations of a message: a report or an error."""

    @property
    def violations(self) -> tuple[Violation, ...]: ...
    @property
    def violation_count(self) -> int: ...


def sentence(*parts: str) -> str:
    """A violation or a reason as text: its path, its code and its message, as far as there are."""
    return ": ".join(filter(None, parts))


def state(report: Report) -> str:
    """Whether a message is valid and canonical, in words."""
    if report.canonical:
        return "valid and canonical"
    return "valid, not canonical" if report.valid else "invalid"


def short_hex(digest: bytes) -> str:
    """The first hex digits of a digest, enough to tell digests apart."""
    return f"{digest.hex()[:12]}…"


def summary(found: Violations) -> str:
    """The first violation, and the number of the others."""
    more = found.violation_count - 1
    rest = f" (and {more} more violation{'s' * (more > 1)})" if more else ""
    return f"{found.violations[0]}{rest}"


def in_words(found: Violations) -> Iterator[str]:
    """The lines that list violations: one for each, and one with the number of those left out."""
    yield from map(str, found.violations)
    more = found.violation_count - len(found.violations)
    if more:
        yield f"and {more} more violation{'s' * (more > 1)}"


class Error(Exception):
    """Base class of what this package raises for bad data."""


class ValidationError(Error, ValueError):
    """A message violates rules.

    Attributes:
        violations: the first 100 of them, in the order of the path.
        violation_count: the total number of violations.
        index: which message of a batch it is, None for a single one.
        hint: as `Report.hint`.
    """

    def __init__(
        self,
        violations: Sequence[Violation],
        violation_count: int,
        index: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(violations, violation_count, index, hint)
        self.violations: tuple[Violation, ...] = tuple(violations)
        self.violation_count = violation_count
        self.index = index
        self.hint = hint

    def __str__(self) -> str:
        where = "" if self.index is None else f"message {self.index}"
        return sentence(where, summary(self)) + (f" ({self.hint})" if self.hint else "")

    def to_bad_request(self) -> BadRequest:
        """The violations as gRPC says them, the details of a status INVALID_ARGUMENT: fields are
        paths, reasons are codes. Needs googleapis-common-protos, which the extra `grpc` installs.

        Raises:
            ImportError: if it is not installed.
        """
        try:
            from google.rpc.error_details_pb2 import BadRequest
        except ImportError as error:
            raise ImportError(
                "expected googleapis-common-protos, found none: pip install 'tvix-build[grpc]'",
                name=error.name,
            ) from error
        return BadRequest(
            field_violations=[
                BadRequest.FieldViolation(
                    field=one.path, reason=one.code.value, description=one.message
                )
                for one in self.violations
            ]
        )


@dataclass(frozen=True)
class Reason:
    """Why a request cannot be said in another schema."""

    path: str
    """Field path in the request, with list indices, such as `outputs[2]`."""
    message: str
    """For people: what was expected and what was found."""

    def __str__(self) -> str:
        return sentence(self.path, self.message)


class NotRepresentableError(Error, ValueError):
    """A valid request says something that another schema cannot say.

    Attributes:
        reasons: all that stands against it, in the order of the fields.
    """

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__(reasons)
        self.reasons: tuple[Reason, ...] = tuple(reasons)

    def __str__(self) -> str:
        return "; ".join(map(str, self.reasons))


def refusal(report: Report, index: int | None = None) -> ValidationError:
    """Why a message has no canonical encoding: all its violations but `not_sorted`, which the
    encoding mends."""
    forbidding = [v for v in report.violations if v.code != ViolationCode.NOT_SORTED]
    others = len(report.violations) - len(forbidding)
    return ValidationError(forbidding, report.violation_count - others, index, report.hint)
