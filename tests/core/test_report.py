# SPDX-License-Identifier: MIT
"""Reports, violations and what they are made of: as values, as text and in notebooks."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
import sys

import blake3
import pytest

import tvix_build
from tvix.build.protos import build_pb2
from tvix.castore.protos import castore_pb2
from tvix_build import Digests, Kind, Reason, Schema, ValidationError, Violation, ViolationCode
from tvix_build._core.report import KindLike, SchemaLike, in_words


@pytest.mark.parametrize("member", [*Kind, *Schema, *ViolationCode], ids=repr)
def test_choices_are_their_strings(member: Kind | Schema | ViolationCode) -> None:
    text = member.value
    assert str(member) == f"{member}" == format(member) == f"{member:s}" == text
    assert member == text
    assert hash(member) == hash(text)
    assert f"{member:>30}" == f"{text:>30}"
    assert json.dumps(member) == json.dumps(text)
    assert copy.deepcopy(member) is pickle.loads(pickle.dumps(member)) is type(member)(text)


@pytest.mark.parametrize("value", ["Build", "", None, 1])
def test_a_wrong_choice_lists_the_right_ones(value: object) -> None:
    reason = (
        f"expected a Kind: 'build-request', 'build', 'directory', 'step' or 'plan'; found {value!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        Kind(value)


def test_a_violation_as_text() -> None:
    code, words = ViolationCode.INVALID_NAME, "expected this, found that"
    assert str(Violation(code, "outputs[0]", words)) == f"outputs[0]: invalid_name: {words}"
    assert str(Violation(ViolationCode.MALFORMED, "", words)) == f"malformed: {words}"
    assert str(Reason("outputs[0]", words)) == f"outputs[0]: {words}"


@pytest.mark.parametrize("count", [1, 2, 3, 100, 101, 102, 1000])
def test_many_violations_as_text(count: int) -> None:
    report = tvix_build.check(build_pb2.BuildRequest(command_args=["a"], outputs=["/"] * count))
    lines = list(in_words(report))
    shown = len(report.violations)
    assert lines[:shown] == list(map(str, report.violations))
    more = report.violation_count - shown
    assert lines[shown:] == (
        [f"and {more} more violation{'s' if more > 1 else ''}"] if more else []
    )


@pytest.mark.parametrize(
    ("index", "count", "text"),
    [
        (None, 1, "outputs[0]: invalid_name: words"),
        (0, 2, "message 0: outputs[0]: invalid_name: words (and 1 more violation)"),
        (7, 103, "message 7: outputs[0]: invalid_name: words (and 102 more violations)"),
    ],
)
def test_an_error_as_text(index: int | None, count: int, text: str) -> None:
    violation = Violation(ViolationCode.INVALID_NAME, "outputs[0]", "words")
    assert str(ValidationError([violation], count, index)) == text


@pytest.mark.parametrize(
    ("data", "state", "canonical", "more"),
    [
        (b"\x0a\x01a", "valid and canonical", b"\x0a\x01a", ""),
        (b"\x0a\x81\x00a", "valid, not canonical", b"\x0a\x01a", ""),
        (b"\x0a\x01a\x12\x01b\x12\x01a", "invalid", b"\x0a\x01a\x12\x01a\x12\x01b", ""),
        (b"\x12\x01/", "invalid", None, " (and 1 more violation)"),
    ],
)
def test_a_report_in_a_console(data: bytes, state: str, canonical: bytes | None, more: str) -> None:
    report = tvix_build.check(data)
    digest = blake3.blake3(canonical).hexdigest() if canonical else ""
    parts = [state, *([f"digest {digest[:12]}…"] if digest else [])]
    if report.violations:
        parts.append(f"{report.violations[0]}{more}")
    assert repr(report) == f"<Report: {', '.join(parts)}>"
    html = report._repr_html_()
    assert html.startswith(f"<p>{state}{f': <code>{digest}</code>' if digest else ''}</p>")
    assert html.count("<tr>") == bool(report.violations) + len(report.violations)


def test_what_messages_say_is_escaped_in_notebooks() -> None:
    bad = build_pb2.BuildRequest(command_args=["a"], outputs=["</td><script>/"] * 12)
    for shown in (tvix_build.check(bad), tvix_build.check_batch([bad] * 12)):
        html = shown._repr_html_()
        assert "<script>" not in html
        assert "&lt;/td&gt;&lt;script&gt;" in html
        assert html.count("<tr>") == 1 + 10
        assert re.search("<p>and [0-9]+ more</p>$", html)


def test_batches_in_a_console() -> None:
    reports = tvix_build.check_batch([b"\x0a\x01a", b"", b"\x0a\x01b"])
    assert repr(reports) == "<BatchReport: 2 of 3 valid, kind build-request>"
    html = reports._repr_html_()
    assert html.startswith("<p>BatchReport: 2 of 3 valid, kind build-request</p><table>")
    assert ">1</td>" in html
    assert "command_args: required: " in html
    valid = tvix_build.check_batch([b"\x0a\x01a"])
    assert valid._repr_html_() == "<p>BatchReport: 1 of 1 valid, kind build-request</p>"
    encodings = tvix_build.canonicalize_batch([b"\x0a\x01a", b"\x0a\x02ab"])
    assert repr(encodings) == "<CanonicalBatch: 2 messages, 7 bytes>"
    assert repr(Digests(b"")) == "<Digests: 0>"
    assert repr(Digests(bytes(32))) == "<Digests: 1: 000000000000…>"
    assert repr(Digests(bytes(128))) == f"<Digests: 4: {'000000000000…, ' * 3}…>"


@pytest.mark.parametrize(
    ("reports", "remedy"),
    [
        (tvix_build.check(b""), "report.valid"),
        (tvix_build.check_batch([]), "all(report.valid) or len(report)"),
    ],
)
def test_a_report_is_no_condition(reports: object, remedy: str) -> None:
    with pytest.raises(TypeError, match=f"has no truth value; use {re.escape(remedy)}$"):
        bool(reports)


def test_a_bad_request_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.rpc.error_details_pb2", None)
    with pytest.raises(ImportError, match=r"pip install 'tvix-build\[grpc\]'$"):
        ValidationError([], 0).to_bad_request()


# --- Hints ---------------------------------------------------------------------------------------

TVIX_2024 = Schema.TVIX_BUILD_V1_2024
TVIX = tvix_build.build_request(
    command_args=["sh"], environment_vars={"key": "value"}, system="x86_64-linux"
).SerializeToString()
SNIX = tvix_build.build_request(
    command_args=["sh"], working_dir="build", system="x86_64-linux", schema="snix.build.v1"
).SerializeToString()
DIRECTORY = castore_pb2.Directory(
    directories=[castore_pb2.DirectoryNode(name=b"a", digest=b"\xff" * 32, size=1)]
).SerializeToString()
BUILD = build_pb2.Build(build_request=build_pb2.BuildRequest.FromString(TVIX)).SerializeToString()


@pytest.mark.parametrize(
    ("data", "kind", "schema", "found", "use"),
    [
        (SNIX, None, None, "snix.build.v1 BuildRequest", 'schema="snix.build.v1"'),
        (TVIX, None, "snix.build.v1", "tvix.build.v1 BuildRequest", 'schema="tvix.build.v1"'),
        (TVIX, None, TVIX_2024, "tvix.build.v1 BuildRequest", 'schema="tvix.build.v1"'),
        (DIRECTORY, None, None, "tvix.castore.v1 Directory", 'kind="directory"'),
        (BUILD, "directory", None, "tvix.build.v1 Build", 'kind="build"'),
        (
            SNIX,
            "build",
            None,
            "snix.build.v1 BuildRequest",
            'kind="build-request", schema="snix.build.v1"',
        ),
        # What is wrong with these does not depend on the schema, or they are of none.
        (b"", None, None, None, None),
        (b"\xff", None, None, None, None),
        (TVIX, None, None, None, None),
        (b"\x12\x01x", None, None, None, None),
    ],
)
def test_hints(
    data: bytes, kind: KindLike | None, schema: SchemaLike | None, found: str | None, use: str
) -> None:
    hint = f"decodes as {found}; use {use}" if found else None
    for wrapped in (data, bytearray(data), memoryview(data)):
        report = tvix_build.check(wrapped, kind=kind, schema=schema)
        assert report.hint == hint
        for copied in (pickle.loads(pickle.dumps(report)), copy.deepcopy(report)):
            assert (copied, copied.hint) == (report, hint)
        if report.valid:
            continue
        for raising in (tvix_build.validate, tvix_build.canonicalize, tvix_build.digest):
            with pytest.raises(ValidationError) as caught:
                raising(wrapped, kind=kind, schema=schema)
            assert caught.value.hint == hint
            assert str(caught.value).endswith(
                f" ({hint})" if hint else report.violations[0].message
            )
            assert pickle.loads(pickle.dumps(caught.value)).hint == hint


def test_a_hint_is_of_the_bytes_that_were_checked() -> None:
    data = bytearray(SNIX)
    report = tvix_build.check(data)
    data[:] = b""
    assert report.hint == 'decodes as snix.build.v1 BuildRequest; use schema="snix.build.v1"'


def test_messages_and_batches_have_no_hint() -> None:
    odd = build_pb2.BuildRequest.FromString(BUILD + b"\xf8\x01\x00")
    assert not tvix_build.check(odd).valid
    assert tvix_build.check(odd).hint is None
    assert tvix_build.check_batch([SNIX])[0].hint is None
    assert dataclasses.astuple(tvix_build.check(SNIX))[0] is False
    assert {field.name for field in dataclasses.fields(tvix_build.Report)} == {
        "valid",
        "canonical",
        "digest",
        "violations",
        "violation_count",
    }
