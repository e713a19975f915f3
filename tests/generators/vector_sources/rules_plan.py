# SPDX-License-Identifier: MIT
"""All rules for a Plan, satisfied and violated. Those of its steps have vectors of their own."""

from __future__ import annotations

from blake3 import blake3

from vector_sources import parts, parts_later
from vector_sources.parts import DIGEST, text
from vector_sources.topic import FIRST, PLAN, SNIX, TVIX_2024, Topic
from wire import blob, nested_groups, number

TOPIC = Topic("rules_plan", PLAN, "rules of a Plan, on both sides of their limits")


def ref(step: bytes, output: str) -> bytes:
    """Return a ref to an output of a step."""
    return blob(2, text(1, digest(step)), text(2, output))


def step(output: str, *refs: bytes, schema: str = FIRST) -> bytes:
    """Return a step with one output."""
    first = schema == FIRST
    request = parts.ARGS + parts.outputs(output)
    later = parts_later.ARGS + parts_later.outputs(output)
    return text(1, request if first else later) + b"".join(refs) + text(3, schema)


def digest(step: bytes) -> bytes:
    return blake3(step).digest()


def steps(*some: bytes) -> bytes:
    """Return the field with steps, in this order."""
    return b"".join(blob(1, one) for one in some)


def roots(*some: bytes) -> bytes:
    """Return the field with the digests of steps, in this order."""
    return b"".join(blob(2, digest(one)) for one in some)


def in_order(*some: bytes) -> list[bytes]:
    return sorted(some, key=digest)


#: A step that needs none, one that needs it, and one that needs both.
A = step("a")
B = step("b", ref(A, "a"))
C = step("c", ref(A, "a"), ref(B, "b"))
FIRST_STEP, SECOND_STEP = in_order(A, B)
INDEX_A, INDEX_B = (0, 1) if FIRST_STEP == A else (1, 0)

TOPIC.canonical("one_step", "a step that needs no other", steps(A) + roots(A))
TOPIC.canonical(
    "diamond", "three steps, of which one is a root", steps(*in_order(A, B, C)) + roots(C)
)
TOPIC.canonical(
    "roots_within",
    "a root that another root needs",
    steps(*in_order(A, B)) + roots(*in_order(A, B)),
)
for _schema in (TVIX_2024, SNIX):
    _one = step("store/a", schema=_schema)
    _two = step("b", ref(_one, "store/a"), schema=_schema)
    TOPIC.canonical(
        f"schema_{_schema}",
        "steps of this schema, whose outputs are paths",
        steps(*in_order(_one, _two)) + roots(_two),
    )
TOPIC.refused("empty", "empty message", b"", ("required", "roots"))
TOPIC.refused(
    "no_roots",
    "steps without a root",
    steps(A),
    ("unreachable_step", "steps[0]"),
    ("required", "roots"),
)

# ---- order

TOPIC.unsorted(
    "steps_unsorted",
    "steps in descending order of their digests",
    steps(SECOND_STEP, FIRST_STEP) + roots(B),
    steps(FIRST_STEP, SECOND_STEP) + roots(B),
    "steps[1]",
)
TOPIC.unsorted(
    "roots_unsorted",
    "roots in descending order",
    steps(FIRST_STEP, SECOND_STEP) + roots(SECOND_STEP, FIRST_STEP),
    steps(FIRST_STEP, SECOND_STEP) + roots(FIRST_STEP, SECOND_STEP),
    "roots[1]",
)
TOPIC.refused(
    "steps_twice",
    "equal steps",
    steps(A, A) + roots(A),
    ("duplicate", "steps[1]"),
)
TOPIC.refused(
    "roots_twice",
    "equal roots",
    steps(A) + roots(A, A),
    ("duplicate", "roots[1]"),
)
_sorted = parts.ARGS + parts.outputs("a", "b")
_unsorted = parts.ARGS + parts.outputs("b", "a")
_needs = step("c", blob(2, text(1, digest(text(1, _sorted) + text(3, FIRST))), text(2, "b")))
_good, _bad = (text(1, request) + text(3, FIRST) for request in (_sorted, _unsorted))
_index = in_order(_good, _needs).index(_good)
TOPIC.unsorted(
    "step_unsorted",
    "an unsorted list in a request: the digest is that of the canonical encoding of the step",
    steps(*(_bad if one == _good else one for one in in_order(_good, _needs))) + roots(_needs),
    steps(*in_order(_good, _needs)) + roots(_needs),
    f"steps[{_index}].request.outputs[1]",
)
TOPIC.refused(
    "step_twice_otherwise",
    "steps that differ only in the order of a list",
    steps(_good, _bad) + roots(_good),
    ("duplicate", "steps[1]"),
    ("not_sorted", "steps[1].request.outputs[1]"),
)

# ---- references

TOPIC.refused(
    "ref_unknown",
    "a ref to a step that the plan lacks",
    steps(B) + roots(B),
    ("unknown_step", "steps[0].input_refs[0].step"),
)
_wrong = step("b", ref(A, "b2"), ref(A, "c"))
_index = in_order(A, _wrong).index(_wrong)
TOPIC.refused(
    "ref_to_unknown_output",
    "refs to outputs that the step lacks",
    steps(*in_order(A, _wrong)) + roots(_wrong),
    ("unexpected_output", f"steps[{_index}].input_refs[0].output"),
    ("unexpected_output", f"steps[{_index}].input_refs[1].output"),
)
_one = step("store/a", schema=SNIX)
_two = step("b", ref(_one, "other/a"), schema=SNIX)
_index = in_order(_one, _two).index(_two)
TOPIC.refused(
    "ref_to_base_name",
    "a ref to another path with the base name of an output",
    steps(*in_order(_one, _two)) + roots(_two),
    ("unexpected_output", f"steps[{_index}].input_refs[0].output"),
)
TOPIC.refused(
    "root_unknown",
    "a root that is not a step of the plan",
    steps(A) + b"".join(sorted((roots(A), roots(B)))),
    ("unknown_step", f"roots[{int(digest(B) > digest(A))}]"),
)
for _length in (0, 31, 33):
    TOPIC.refused(
        f"root_{_length}",
        f"a root of {_length} bytes",
        steps(A) + b"".join(blob(2, one) for one in sorted((digest(A), b"\xff" * _length))),
        ("invalid_digest", f"roots[{int(_length > 0)}]"),
        ("unknown_step", f"roots[{int(_length > 0)}]"),
    )
TOPIC.refused(
    "unreachable",
    "a step that no root needs",
    steps(*in_order(A, B)) + roots(A),
    ("unreachable_step", f"steps[{INDEX_B}]"),
)

# ---- steps

_later = step("z", schema=SNIX)
_both = in_order(A, _later)
TOPIC.refused(
    "schemas_differ",
    "steps of two schemas: the second one is reported",
    steps(*_both) + roots(*_both),
    ("invalid_name", "steps[1].schema"),
)
TOPIC.refused(
    "schemas_unknown",
    "an unknown schema, a known one and another known one",
    steps(step("a", schema="x"), A, _later) + roots(A),
    ("invalid_name", "steps[0].schema"),
    ("invalid_name", "steps[2].schema"),
)
TOPIC.refused(
    "step_invalid",
    "a violation of a step: digests are not compared, neither those of steps nor those of refs",
    steps(SECOND_STEP, FIRST_STEP, text(1, parts.args("a\0")) + text(3, FIRST)) + roots(C),
    ("invalid_arg", "steps[2].request.command_args[0]"),
)
TOPIC.refused(
    "step_empty",
    "a step without fields",
    steps(b"") + roots(A),
    ("required", "steps[0].request"),
    ("required", "steps[0].schema"),
)
TOPIC.refused(
    "request_malformed",
    "requests that do not decode, between other steps",
    steps(
        text(1, parts.args("a\0")) + text(3, FIRST),
        text(1, parts.ARGS + b"\x0a") + blob(2) + text(3, FIRST),
        text(1, parts.args("a\0")) + text(3, FIRST),
        text(1, b"\xff") + text(3, SNIX),
    )
    + roots(A),
    ("invalid_arg", "steps[0].request.command_args[0]"),
    ("malformed", "steps[1].request"),
    ("invalid_arg", "steps[2].request.command_args[0]"),
    ("malformed", "steps[3].request"),
    ("invalid_name", "steps[3].schema"),
)
TOPIC.refused(
    "unknown_fields",
    "unknown fields of the plan and of a step",
    steps(A + number(4, 1)) + roots(A) + number(3, 1),
    ("unknown_field", ""),
    ("unknown_field", "steps[0]"),
)
TOPIC.refused(
    "step_groups_99",
    "an unknown field of a step with 99 nested groups: the limit",
    steps(A + nested_groups(9, 99)) + roots(A),
    ("unknown_field", "steps[0]"),
)
TOPIC.malformed(
    "step_groups_100",
    "an unknown field of a step with 100 nested groups",
    steps(A + nested_groups(9, 100)) + roots(A),
)
TOPIC.refused(
    "request_groups_100",
    "an unknown field of a request with 100 nested groups: the limit",
    steps(text(1, parts.ARGS + nested_groups(9, 100)) + text(3, FIRST)) + roots(A),
    ("unknown_field", "steps[0].request"),
)

# ---- decoding

TOPIC.other_bytes(
    "fields_descend",
    "roots before steps, and the fields of a step in descending order",
    roots(A) + steps(text(3, FIRST) + text(1, parts.outputs("a") + parts.ARGS)),
    steps(A) + roots(A),
)
TOPIC.other_bytes(
    "step_not_canonical",
    "a request whose fields are out of order: the digest is that of the canonical encoding",
    steps(text(1, parts.outputs("a") + parts.ARGS) + text(3, FIRST)) + roots(A),
    steps(A) + roots(A),
)
TOPIC.malformed("schema_not_utf8", "a schema is not UTF-8", steps(A, blob(3, b"\xff")) + roots(A))
TOPIC.malformed("truncated", "a step ends too early", steps(A)[:-1])
TOPIC.refused(
    "digest_of_nothing",
    "a step with a ref to a digest that no message has",
    steps(step("b", blob(2, text(1, DIGEST), text(2, "a")))) + roots(A),
    ("unreachable_step", "steps[0]"),
    ("unknown_step", "steps[0].input_refs[0].step"),
    ("unknown_step", "roots[0]"),
)
