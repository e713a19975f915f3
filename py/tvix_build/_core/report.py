# SPDX-License-Identifier: MIT
"""Kinds, schemas, violations, reports and errors. This module has data types only, and no
checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Protocol, TypeAlias

from tvix_build._core.names import publish

if TYPE_CHECKING:
    from google.rpc.error_details_pb2 import BadRequest

NULL = "expected a message, found null"
"""The violation of a null in a table."""


class Choice(str, Enum):
    """An enumeration of strings, as enum.StrEnum in Python 3.11."""

    __str__ = str.__str__

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        *others, last = [repr(choice.value) for choice in cls]
        choices = f"{', '.join(others)} or {last}"
        raise ValueError(f"expected a {cls.__name__}: {choices}; found {value!r}")


class Schema(Choice):
    """A version of the protocol. Members are strings."""

    TVIX_BUILD_V1 = "tvix.build.v1"
    """tvix from December 2023; the default."""
    TVIX_BUILD_V1_2024 = "tvix.build.v1@2024"
    """The last tvix, October 2024: the same names with other field numbers; messages are bytes."""
    SNIX_BUILD_V1 = "snix.build.v1"
    """snix since 2025."""


TvixSchema: TypeAlias = Literal["tvix.build.v1", Schema.TVIX_BUILD_V1]
SnixSchema: TypeAlias = Literal["snix.build.v1", Schema.SNIX_BUILD_V1]
BytesSchema: TypeAlias = Literal["tvix.build.v1@2024", Schema.TVIX_BUILD_V1_2024]
SchemaLike: TypeAlias = Schema | Literal["tvix.build.v1", "tvix.build.v1@2024", "snix.build.v1"]
"""A schema as an argument. Type checkers report misspelt strings."""


class Kind(Choice):
    """A kind of message. Members are strings."""

    BUILD_REQUEST = "build-request"
    """A BuildRequest; the default."""
    BUILD = "build"
    """The response to a request: a Build, or a BuildResponse in snix.build.v1."""
    DIRECTORY = "directory"
    """A Directory of castore."""
    STEP = "step"
    """A step of a plan. It names the schema of its request, so the argument `schema` has no effect.
    """
    PLAN = "plan"
    """A plan. Its steps name the schema of their requests, so the argument `schema` has no effect.
    """

    @property
    def full_name(self) -> str:
        """The full protobuf name in tvix.build.v1, such as `tvix.build.v1.BuildRequest`, or in
        tvix_build.plan.v1."""
        return message_type(self).full_name


KindLike: TypeAlias = Kind | Literal["build-request", "build", "directory", "step", "plan"]
"""A kind as an argument. Type checkers report misspelt strings."""


class MessageType:
    """A kind of message in a schema. There is one object for each; a kind of plans has one for all
    schemas. Not public.

    Attributes:
        schema: the schema; the default one for a kind of plans.
        full_name: the name in the engine: the schema, which may end in a year, and the protobuf
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


_BUILD_KINDS = (Kind.BUILD_REQUEST, Kind.BUILD, Kind.DIRECTORY)
_NAMES = {
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
}
_PLAN_NAMES = {Kind.STEP: "tvix_build.plan.v1.Step", Kind.PLAN: "tvix_build.plan.v1.Plan"}
TYPES: tuple[MessageType, ...] = (
    *(MessageType(kind, Schema.TVIX_BUILD_V1, name) for kind, name in _PLAN_NAMES.items()),
    *(
        MessageType(kind, schema, name)
        for schema, names in _NAMES.items()
        for kind, name in zip(_BUILD_KINDS, names, strict=True)
    ),
)
_TYPES = {
    (found.kind, schema): found
    for found in TYPES
    for schema in (Schema if found.kind in _PLAN_NAMES else (found.schema,))
}


def message_type(kind: Kind | None = None, schema: Schema | None = None) -> MessageType:
    """Return the type of a kind in a schema; by default a BuildRequest of the first schema."""
    return _TYPES[kind or Kind.BUILD_REQUEST, schema or Schema.TVIX_BUILD_V1]


class ViolationCode(Choice):
    """The code of a violated rule; docs/canonical-form.md defines each rule. Members are strings,
    which are stable."""

    MALFORMED = "malformed"
    """The bytes do not decode."""
    UNKNOWN_FIELD = "unknown_field"
    """The schema lacks a field number, or has another wire type for it."""
    REQUIRED = "required"
    """A required field or element is missing."""
    INVALID_ARG = "invalid_arg"
    """An argument contains NUL."""
    INVALID_NAME = "invalid_name"
    """A name is not a path component."""
    INVALID_DIGEST = "invalid_digest"
    """A digest is not 32 bytes long."""
    INVALID_SYMLINK_TARGET = "invalid_symlink_target"
    """A target is empty, too long, or contains NUL."""
    INVALID_ENV_KEY = "invalid_env_key"
    """A key is empty, or contains `=` or NUL."""
    INVALID_ENV_VALUE = "invalid_env_value"
    """A value contains NUL."""
    INVALID_PATH = "invalid_path"
    """A path is not allowed in its field."""
    NOT_SORTED = "not_sorted"
    """An element has a smaller key than the preceding one."""
    DUPLICATE = "duplicate"
    """An element has the key of an earlier one."""
    OUTPUT_IS_INPUT = "output_is_input"
    """An output has the name or the path of an input."""
    MISSING_OUTPUT = "missing_output"
    """The response lacks an output of its request."""
    UNEXPECTED_OUTPUT = "unexpected_output"
    """The request lacks an output of the response."""
    SIZE_OVERFLOW = "size_overflow"
    """The size of a Directory does not fit in 64 bits."""
    INVALID_NEEDLE = "invalid_needle"
    """A needle is empty, or an index of a needle is out of range."""
    NEEDLES_MISMATCH = "needles_mismatch"
    """The numbers of outputs and of lists of needles differ."""
    UNKNOWN_STEP = "unknown_step"
    """A plan lacks the step with a digest."""
    UNREACHABLE_STEP = "unreachable_step"
    """No root of a plan needs a step."""


@dataclass(frozen=True)
class Violation:
    """A violation of a rule."""

    code: ViolationCode
    """The code of the rule."""
    path: str
    """The path of the field, with the indices of the received lists, such as `inputs[3].file.name`;
    `""` for the message itself."""
    message: str
    """A text with what was expected and what was found."""

    def __str__(self) -> str:
        return sentence(self.path, self.code, self.message)


@dataclass(frozen=True, repr=False)
class Report:
    """The result of a check of a message."""

    valid: bool
    """Whether the message has no violations."""
    canonical: bool
    """Whether the message is valid, and its bytes are its canonical encoding."""
    digest: bytes | None
    """The BLAKE3-256 hash of the canonical encoding, 32 bytes; None if the message has no canonical
    encoding, that is, if it has a violation other than `not_sorted`."""
    violations: tuple[Violation, ...]
    """The first 100 violations, ordered by path."""
    violation_count: int
    """The total number of violations."""
    _source: ClassVar[partial[str | None] | None] = None
    """Finds the hint of a single message whose bytes may be of another type."""

    @cached_property
    def hint(self) -> str | None:
        """A suggestion of another kind or schema, if bytes are malformed or have unknown fields
        with the expected ones. The other types are tried on access. None for protobuf messages, and
        in batches, which do not keep the bytes."""
        return self._source() if self._source else None

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for pickling, with the hint instead of the bytes."""
        return {**vars(self), "hint": self.hint, "_source": None}

    def __bool__(self) -> NoReturn:
        """Raise TypeError: `if check(message)` could mean that there is a report or that the
        message is valid.

        Raises:
            TypeError: always.
        """
        raise TypeError("a Report has no truth value; use report.valid")

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


def canonical_report(digest: bytes) -> Report:
    """Return the report on a canonical message, in less time than the constructor, which assigns to
    a frozen dataclass."""
    report = object.__new__(Report)
    values = report.__dict__
    values["valid"] = values["canonical"] = True
    values["digest"] = digest
    values["violations"] = ()
    values["violation_count"] = 0
    return report


class Violations(Protocol):
    """An object with the violations of a message: a report or an error."""

    @property
    def violations(self) -> tuple[Violation, ...]: ...
    @property
    def violation_count(self) -> int: ...


def sentence(*parts: str) -> str:
    """Return a violation or a reason as text: its path, code and message, without empty parts."""
    return ": ".join(filter(None, parts))


def state(report: Report) -> str:
    """Return a text that says whether a message is valid and canonical."""
    if report.canonical:
        return "valid and canonical"
    return "valid, not canonical" if report.valid else "invalid"


def short_hex(digest: bytes) -> str:
    """Return the first hexadecimal digits of a digest, enough to distinguish digests."""
    return f"{digest.hex()[:12]}…"


def summary(found: Violations) -> str:
    """Return the first violation and the number of other violations, as text."""
    more = found.violation_count - 1
    return f"{found.violations[0]} ({_more(more)})" if more else str(found.violations[0])


def in_words(found: Violations) -> Iterator[str]:
    """Yield one line per violation, and one with the number of violations that are not listed."""
    yield from map(str, found.violations)
    more = found.violation_count - len(found.violations)
    if more:
        yield _more(more)


def _more(count: int) -> str:
    return f"and {count} more violation{'s' * (count > 1)}"


class Error(Exception):
    """The base class of exceptions for invalid data."""


class ValidationError(Error, ValueError):
    """A message is invalid.

    Attributes:
        violations: the first 100 violations, ordered by path.
        violation_count: the total number of violations.
        index: the index of the message in a batch; None for a single message.
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
        """Return the violations as details of a gRPC status INVALID_ARGUMENT: `field` is the path
        and `reason` the code. Requires googleapis-common-protos, which the extra `grpc` installs.

        Raises:
            ImportError: if it is not installed.
        """
        try:
            from google.rpc.error_details_pb2 import BadRequest
        except ImportError as error:
            raise ImportError(
                "to_bad_request needs googleapis-common-protos: pip install 'tvix-build[grpc]'",
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
    """A reason why another schema cannot represent a request."""

    path: str
    """The path of the field in the request, such as `outputs[2]`."""
    message: str
    """A text with what was expected and what was found."""

    def __str__(self) -> str:
        return sentence(self.path, self.message)


class NotRepresentableError(Error, ValueError):
    """Another schema cannot represent a valid request.

    Attributes:
        reasons: all reasons, in the order of the fields.
    """

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__(reasons)
        self.reasons: tuple[Reason, ...] = tuple(reasons)

    def __str__(self) -> str:
        return "; ".join(map(str, self.reasons))


def refusal(report: Report, index: int | None = None) -> ValidationError:
    """Return the error of a message without a canonical encoding, with all violations except for
    `not_sorted`."""
    forbidding = [v for v in report.violations if v.code != ViolationCode.NOT_SORTED]
    others = len(report.violations) - len(forbidding)
    return ValidationError(forbidding, report.violation_count - others, index, report.hint)


publish(
    "tvix_build",
    Error,
    Kind,
    NotRepresentableError,
    Reason,
    Report,
    Schema,
    ValidationError,
    Violation,
    ViolationCode,
)
