# SPDX-License-Identifier: MIT
"""Reports, violations and what they are made of: as values, as text and in notebooks."""

from __future__ import annotations

import copy
import json
import pickle
import re

import pytest

import tvix_build
from tvix.build.protos import build_pb2
from tvix_build import Kind, Reason, Schema, ValidationError, Violation, ViolationCode
from tvix_build._core.report import in_words


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
    reason = f"expected a Kind: 'build-request', 'build' or 'directory'; found {value!r}"
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
