# SPDX-License-Identifier: MIT
"""All rules for a Step, satisfied and violated. Those of its request have vectors of their own."""

from __future__ import annotations

from vector_sources import parts, parts_later
from vector_sources.parts import DIGEST, text
from vector_sources.topic import FIRST, SNIX, STEP, TVIX_2024, Topic
from wire import blob, nested_groups, number

TOPIC = Topic("rules_step", STEP, "rules of a Step of a plan, on both sides of their limits")

OTHER = bytes(range(32, 64))


def step(request: bytes, *refs: bytes, schema: str = FIRST) -> bytes:
    return text(1, request) + b"".join(refs) + text(3, schema)


def ref(output: bytes | str, digest: bytes = DIGEST) -> bytes:
    return blob(2, text(1, digest), text(2, output))


def later(*refs: bytes, schema: str = SNIX, request: bytes = parts_later.ARGS) -> bytes:
    return step(request, *refs, schema=schema)


REQUEST = parts.ARGS + parts.outputs("out") + parts.inputs(parts.file("src"))

TOPIC.canonical("smallest", "the smallest valid step", step(parts.ARGS))
TOPIC.canonical(
    "everything",
    "a request with an output and an input; refs between and around their names",
    step(REQUEST, ref("a"), ref("p"), ref("z")),
)
TOPIC.refused("empty", "empty message", b"", ("required", "request"), ("required", "schema"))

# ---- schema

for _schema in (TVIX_2024, SNIX):
    TOPIC.canonical(f"schema_{_schema}", "a request of this schema", later(schema=_schema))
for _label, _about, _schema in (
    ("unknown", "another name", "snix.build.v2"),
    ("prefix", "the beginning of a name", "tvix.build"),
    ("longer", "a name and another byte", "tvix.build.v1 "),
    ("upper_case", "upper case", "TVIX.BUILD.V1"),
):
    TOPIC.refused(
        f"schema_{_label}",
        f"schema: {_about}; the request and the outputs are not checked",
        step(b"\xff", ref(""), schema=_schema),
        ("invalid_name", "schema"),
    )
TOPIC.refused(
    "schema_missing",
    "no schema, so the request is not checked",
    step(b"\xff", schema=""),
    ("required", "schema"),
)
TOPIC.refused(
    "schema_unknown_no_request",
    "an unknown schema, and no request",
    step(b"", ref("b"), ref("a"), schema="x"),
    ("required", "request"),
    ("not_sorted", "input_refs[1]"),
    ("invalid_name", "schema"),
)
TOPIC.other_bytes(
    "schema_last_wins",
    "two schemas: the last one counts",
    blob(3, SNIX) + step(parts.ARGS),
    step(parts.ARGS),
)
TOPIC.refused(
    "schema_of_other_request",
    "a request of another schema, which does not decode as one of this schema",
    step(parts.ARGS, schema=SNIX),
    ("malformed", "request"),
)

# ---- request

TOPIC.refused(
    "request_violations",
    "violations of the request, the output of which is a ref",
    step(parts.args("a\0") + parts.outputs("b", "a"), ref("b")),
    ("invalid_arg", "request.command_args[0]"),
    ("output_is_input", "request.outputs[0]"),
    ("not_sorted", "request.outputs[1]"),
)
TOPIC.unsorted(
    "request_unsorted",
    "a list of the request is out of order",
    step(parts.ARGS + parts.outputs("b", "a"), ref("c")),
    step(parts.ARGS + parts.outputs("a", "b"), ref("c")),
    "request.outputs[1]",
)
TOPIC.other_bytes(
    "request_not_canonical",
    "fields of the request are out of order",
    step(parts.outputs("a") + parts.ARGS),
    step(parts.ARGS + parts.outputs("a")),
)
TOPIC.other_bytes(
    "request_last_wins",
    "two requests: the last one counts, and does not merge with the first",
    blob(1, b"\xff") + step(parts.ARGS),
    step(parts.ARGS),
)
TOPIC.refused(
    "request_last_is_empty",
    "two requests, the last one empty",
    step(parts.ARGS) + blob(1),
    ("required", "request"),
)
TOPIC.refused(
    "request_of_defaults",
    "a request without any field other than defaults",
    later(request=blob(3)),
    ("required", "request"),
)
TOPIC.refused(
    "request_malformed",
    "the request does not decode: no other violation is reported",
    step(b"\x0a", ref(""), ref("")) + number(9, 1),
    ("malformed", "request"),
)
TOPIC.refused(
    "request_not_utf8",
    "a string of the request is not UTF-8",
    step(parts.args(b"\xff")),
    ("malformed", "request"),
)
TOPIC.refused(
    "request_groups_100",
    "an unknown field of the request with 100 nested groups: the limit",
    step(parts.ARGS + nested_groups(9, 100)),
    ("unknown_field", "request"),
)
TOPIC.refused(
    "request_groups_101",
    "an unknown field of the request with 101 nested groups",
    step(parts.ARGS + nested_groups(9, 101)),
    ("malformed", "request"),
)

# ---- refs

for _length in (0, 31, 33):
    TOPIC.refused(
        f"ref_digest_{_length}",
        f"a digest of {_length} bytes",
        step(parts.ARGS, ref("a", bytes(_length))),
        ("invalid_digest", "input_refs[0].step"),
    )
for _label, _about, _output in (
    ("empty", "empty", ""),
    ("256", "256 bytes", "n" * 256),
    ("slash", "contains a slash", "a/b"),
    ("two_dots", "two dots", ".."),
    ("nul", "contains a NUL", "a\0b"),
):
    TOPIC.refused(
        f"output_{_label}",
        f"output: {_about}",
        step(parts.ARGS, ref(_output)),
        ("invalid_name", "input_refs[0].output"),
    )
TOPIC.canonical("output_255", "output: 255 bytes", step(parts.ARGS, ref("n" * 255)))
for _label, _about, _output in (
    ("name", "one component", "a"),
    ("path", "several components", "nix/store/a"),
    ("255", "a last component of 255 bytes", "n" * 300 + "/" + "n" * 255),
):
    TOPIC.canonical(f"path_{_label}", f"output: {_about}", later(ref(_output)))
for _label, _about, _output in (
    ("empty", "empty", ""),
    ("absolute", "absolute", "/a"),
    ("last_slash", "ends with a slash", "a/"),
    ("dots", "a component of two dots", "../a"),
    ("nul", "contains a NUL", "a\0b"),
    ("256", "a last component of 256 bytes", "a/" + "n" * 256),
):
    TOPIC.refused(
        f"path_{_label}",
        f"output: {_about}",
        later(ref(_output), schema=TVIX_2024),
        ("invalid_path", "input_refs[0].output"),
    )
TOPIC.unsorted(
    "refs_unsorted",
    "the base names decide the order, not the paths",
    later(ref("a/z"), ref("b/y")),
    later(ref("b/y"), ref("a/z")),
    "input_refs[1]",
)
TOPIC.refused(
    "refs_same_base_name",
    "two outputs with the same base name, and two with the same bytes",
    later(ref("a/x"), ref("b/x", OTHER), ref("y"), ref("y", OTHER)),
    ("duplicate", "input_refs[1]"),
    ("duplicate", "input_refs[3]"),
)
TOPIC.refused(
    "refs_and_inputs",
    "the base name of refs is that of an input; the second one is reported once",
    later(ref("a/x"), ref("b/x"), request=parts_later.inputs(parts.file("x")) + parts_later.ARGS),
    ("duplicate", "input_refs[0]"),
    ("duplicate", "input_refs[1]"),
)
TOPIC.refused(
    "output_is_ref",
    "an output of the step is where an input is visible",
    later(
        ref("o/x"),
        ref("o/y"),
        request=parts_later.ARGS
        + parts_later.inputs_dir("in")
        + parts_later.outputs("in/x", "o/y", "y"),
    ),
    ("output_is_input", "request.outputs[0]"),
)
TOPIC.refused(
    "output_is_ref_and_input",
    "a name of an output, an input and a ref: each violation once",
    step(parts.ARGS + parts.outputs("x") + parts.inputs(parts.file("x")), ref("x")),
    ("output_is_input", "request.outputs[0]"),
    ("duplicate", "input_refs[0]"),
)
TOPIC.refused(
    "unknown_fields",
    "unknown fields of the step, of a ref and of the request",
    step(parts.ARGS + number(6, 1), blob(2, text(1, DIGEST), text(2, "a"), number(3, 1)))
    + number(4, 1),
    ("unknown_field", ""),
    ("unknown_field", "request"),
    ("unknown_field", "input_refs[0]"),
)

# ---- decoding

TOPIC.malformed("schema_not_utf8", "the schema is not UTF-8", step(parts.ARGS) + blob(3, b"\xff"))
TOPIC.malformed("truncated", "the request ends too early", step(parts.ARGS)[:3])
TOPIC.other_bytes(
    "fields_descend",
    "fields in descending order",
    blob(3, FIRST) + ref("a") + blob(1, parts.ARGS),
    step(parts.ARGS, ref("a")),
)
TOPIC.other_bytes(
    "ref_fields_descend",
    "fields of a ref in descending order",
    step(parts.ARGS, blob(2, text(2, "a"), text(1, DIGEST))),
    step(parts.ARGS, ref("a")),
)
