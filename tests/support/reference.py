# SPDX-License-Identifier: MIT
"""The rules of docs/canonical-form.md in plain Python, to test the engine against.

Decodes with protobuf's decoder (upb), hashes with the blake3 package, and keeps all violations.
Implements the rules one by one, without tvix_build and without regard to speed. The rules of each
schema are in reference_first.py and reference_later.py, those of plans in reference_plan.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3
from google.protobuf.descriptor import Descriptor
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError, Message

import decoder_versions
import reference_first as first
import reference_later as later
import reference_plan as plan
import schema_2024
import snix.build.protos.build_pb2 as snix_build
import snix.castore.protos.castore_pb2 as snix_castore
import tvix.build.protos.build_pb2 as tvix_build
import tvix.castore.protos.castore_pb2 as tvix_castore
from reference_parts import (
    CODES,
    ROOT,
    Findings,
    Path,
    Violation,
    check_directory,
    sort_directory,
)
from tvix_build.plan.v1 import plan_pb2

__all__ = [
    "CODES",
    "ReferenceReport",
    "RefusedError",
    "Violation",
    "canonicalize",
    "check",
    "message_class",
]

if api_implementation.Type() != "upb":
    raise RuntimeError(f"expected protobuf with upb, found {api_implementation.Type()}")

FIRST: Final = "tvix.build.v1"
TVIX_2024: Final = "tvix.build.v1@2024"
SNIX: Final = "snix.build.v1"

#: The class, the check and the sort function of each kind and schema.
_RULES: dict[
    tuple[str, str], tuple[Any, Callable[[Any, Path, Findings], None], Callable[[Any], None]]
] = {
    ("build-request", FIRST): (
        tvix_build.BuildRequest,
        first.check_build_request,
        first.sort_build_request,
    ),
    ("build", FIRST): (tvix_build.Build, first.check_build, first.sort_build),
    ("directory", FIRST): (tvix_castore.Directory, check_directory, sort_directory),
    ("build-request", TVIX_2024): (
        schema_2024.BuildRequest,
        later.check_build_request,
        later.sort_build_request,
    ),
    ("build", TVIX_2024): (schema_2024.Build, later.check_build, later.sort_build),
    ("directory", TVIX_2024): (tvix_castore.Directory, check_directory, sort_directory),
    ("build-request", SNIX): (
        snix_build.BuildRequest,
        later.check_build_request,
        later.sort_build_request,
    ),
    ("build", SNIX): (
        snix_build.BuildResponse,
        later.check_build_response,
        later.sort_build_response,
    ),
    ("directory", SNIX): (snix_castore.Directory, check_directory, sort_directory),
    # A step names the schema of its request itself.
    ("step", FIRST): (plan_pb2.Step, plan.check_step, plan.sort_step),
    ("plan", FIRST): (plan_pb2.Plan, plan.check_plan, plan.sort_plan),
}


def _full_name(kind: str, schema: str) -> str:
    name: str = _RULES[kind, schema][0].DESCRIPTOR.full_name
    return name.replace(FIRST, TVIX_2024) if schema == TVIX_2024 else name


#: The kind and schema of each type of message, by its name in the engine. The schemas of tvix have
#: the same Directory.
TYPES: dict[str, tuple[str, str]] = {}
for _kind, _schema in _RULES:
    TYPES.setdefault(_full_name(_kind, _schema), (_kind, _schema))


@dataclass(frozen=True)
class ReferenceReport:
    """The result for one message. `digest` is None if it has no canonical encoding."""

    valid: bool
    canonical: bool
    digest: bytes | None
    violations: list[Violation]


class RefusedError(Exception):
    """Raised for a message without a canonical encoding. `violations` are the reasons."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__(violations)
        self.violations = violations


def check(
    data: bytes, kind: str, schema: str = FIRST, request: bytes | None = None
) -> ReferenceReport:
    """Return the report on `data` as a kind of a schema, such as "build-request".

    `request` is the encoded request of a "build" of snix.build.v1.
    """
    message, violations = _decode(data, kind, schema, request)
    if message is None or not _has_encoding(violations):
        return ReferenceReport(False, False, None, violations)
    encoding = _encode(message, kind, schema)
    valid = not violations
    return ReferenceReport(valid, valid and encoding == data, blake3(encoding).digest(), violations)


def message_class(kind: str, schema: str) -> type[Message]:
    """Return the class of a kind's messages."""
    found: type[Message] = _RULES[kind, schema][0]
    return found


def canonicalize(data: bytes, kind: str, schema: str = FIRST) -> bytes:
    """Return the canonical encoding. Raise RefusedError if `data` violates more than not_sorted."""
    message, violations = _decode(data, kind, schema, None)
    if message is None or not _has_encoding(violations):
        raise RefusedError([violation for violation in violations if violation[0] != "not_sorted"])
    return _encode(message, kind, schema)


def descriptor(kind: str, schema: str) -> Descriptor:
    """The descriptor of the messages of a kind in a schema."""
    found: Descriptor = _RULES[kind, schema][0].DESCRIPTOR
    return found


def is_outdated(data: bytes, kind: str, schema: str) -> bool:
    """Whether the installed protobuf is too old to decode `data` as the rules say. May be True for
    a step or plan that it does decode so."""
    if not decoder_versions.IS_OLD:
        return False
    return kind in ("step", "plan") or decoder_versions.may_differ(data, descriptor(kind, schema))


def _decode(
    data: bytes, kind: str, schema: str, request: bytes | None
) -> tuple[Message | None, list[Violation]]:
    if (kind, schema) not in _RULES:
        raise ValueError(f"expected a kind of the schema, found {kind!r} {schema!r}")
    message_class, check_message, _ = _RULES[kind, schema]
    findings = Findings()
    try:
        message: Message = message_class.FromString(data)
    except DecodeError:
        return None, [("malformed", "")]
    if request is None:
        check_message(message, ROOT, findings)
    else:
        its_request = snix_build.BuildRequest.FromString(request)
        assert isinstance(message, snix_build.BuildResponse)
        later.check_build_response(message, ROOT, findings, its_request)
    return message, findings.in_order()


def _has_encoding(violations: list[Violation]) -> bool:
    return all(code == "not_sorted" for code, _ in violations)


def _encode(message: Message, kind: str, schema: str) -> bytes:
    """Sort the lists of a decoded message without unknown fields. Return its canonical encoding.

    upb's deterministic encoding has fields in ascending order, elements in order, shortest varints,
    no defaults, present messages even if empty, and packed lists of numbers.
    tests/core/test_reference.py compares it with handmade bytes.
    """
    _, _, sort = _RULES[kind, schema]
    sort(message)
    return message.SerializeToString(deterministic=True)
