# SPDX-License-Identifier: MIT
"""Reports, violations and what they are made of: as values, as text and in notebooks."""

from __future__ import annotations

import copy
import json
import pickle
import re

import pytest

from tvix_build import Kind, Schema, ViolationCode


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
