# SPDX-License-Identifier: MIT
"""The rows of the C core's schemas have the fields of the descriptors: all of them, and no others.

The rows are read from the sources: a row may say a field's name, number or type wrong where no
vector shows it. Rows that no table can have do not compile.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

import reference
from tvix_build._core import engine
from tvix_build._core.report import TYPES

NATIVE = Path(__file__).parents[2] / "native"

_ROWS = re.compile(r"^#define (\w+)\((F\b[^)]*)\)((?:.*\\\n)*.*)\n", re.M)
_ROW = re.compile(r"F\((\d+), (\w+)(?:\(\w+\))?, (\w+)(?:\((\w+)\))?, (\w+), (\w+)([^)]*)")
_CALL = re.compile(r"(\w+)\(F\b")
_MESSAGE = re.compile(r"^TVIXB_MESSAGE\((\w+), (\w+)[,)]", re.M)
_KIND = re.compile(r'^ +(?:TVIXB_KIND\(\s*"([^"]+)", (\w+)|DIRECTORY_KIND\("([^"]+)"\))', re.M)


class Field(NamedTuple):
    """A field as a row or a descriptor says it; `message` names a message, and is not compared."""

    name: str
    number: int
    type: str
    repeated: bool
    oneof: bool
    message: str | None = None


def read_row(row: tuple[str, ...]) -> Field:
    """Return what a row says."""
    number, label, kind, argument, name, _rule, others = row
    repeated = label in ("REPEATED", "COUNTED", "SORTED", "PARALLEL")
    if ".encoded = true" in others:
        kind = "BYTES"
    message = argument if kind in ("MESSAGE", "PART") else None
    kind = "MESSAGE" if kind == "PART" else kind
    return Field(name, int(number), kind, repeated, label == "ONEOF", message)


def read_messages(source: str) -> dict[str, list[Field]]:
    """Return the fields of each message. Rows may be those of another macro."""
    rows = {name: body for name, _, body in _ROWS.findall(source)}
    for name, body in rows.items():
        call = _CALL.search(body)
        if call and call[1] in rows:
            rows[name] = rows[call[1]]
    return {
        message: [read_row(row) for row in _ROW.findall(rows[macro])]
        for message, macro in _MESSAGE.findall(source)
    }


def declared_field(field: FieldDescriptorProto) -> Field:
    """Return what a row should say of a field."""
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_")
    if repeated and kind == "UINT64":
        kind, repeated = "PACKED", False
    oneof = field.HasField("oneof_index")
    return Field(field.name, field.number, kind, repeated, oneof)


def compare(messages: dict[str, list[Field]], name: str, message: Any) -> None:
    """Compare a message, and the messages of its fields, with a descriptor."""
    declared = DescriptorProto()
    message.CopyToProto(declared)
    fields = sorted(declared.field, key=lambda field: field.number)
    found = [row._replace(message=None) for row in messages[name]]
    assert found == [declared_field(field) for field in fields], f"{name}, {message.full_name}"
    for row in messages[name]:
        child = message.fields_by_number[row.number].message_type
        assert (row.message is None) == (child is None)
        if row.message:
            compare(messages, row.message, child)


def descriptor(kind: str) -> Any:
    """Return the descriptor of a kind of the engine."""
    return reference.message_class(*reference.TYPES[kind]).DESCRIPTOR


SOURCE = "".join(path.read_text() for path in sorted(NATIVE.rglob("schema_*_v1.h")))
SOURCE += next(NATIVE.rglob("schema_castore.h")).read_text()
KINDS = {name or directory: root or "directory" for name, root, directory in _KIND.findall(SOURCE)}


def test_every_kind_is_one_of_the_engine() -> None:
    assert {kind.full_name for kind in TYPES} == set(engine.KINDS)
    assert set(reference.TYPES) == set(engine.KINDS)
    assert set(KINDS) == set(engine.KINDS)


def test_the_header_lists_the_kinds() -> None:
    header = next(NATIVE.rglob("tvix_build.h")).read_text()
    listed = header.partition("The names are:")[2].partition("tvixb_kind_find")[0]
    assert set(re.findall(r'"([^"]+)"', listed)) == set(engine.KINDS)


@pytest.mark.parametrize("kind", engine.KINDS)
def test_rows_have_the_fields_of_the_descriptors(kind: str) -> None:
    compare(read_messages(SOURCE), KINDS[kind], descriptor(kind))


@pytest.mark.parametrize("variant", ["tvix_step", "later_step"])
def test_rows_of_variants_have_the_fields_of_the_descriptor(variant: str) -> None:
    compare(read_messages(SOURCE), variant, descriptor("tvix_build.plan.v1.Step"))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("STRING, scratch_paths,", "STRING, scratch_path,"),
        ("F(4, SORTED, STRING, scratch_paths", "F(11, SORTED, STRING, scratch_paths"),
        ("BYTES, value", "STRING, value"),
        ("BOOL, network_access", "UINT64, network_access"),
        ("REPEATED, STRING, command_args", "SINGLE, STRING, command_args"),
        ("ONEOF, MESSAGE(file_node)", "SINGLE, MESSAGE(file_node)"),
        ("MESSAGE(snix_env_var)", "MESSAGE(node)"),
    ],
)
def test_wrong_rows_are_found(right: str, wrong: str) -> None:
    assert right in SOURCE
    messages = read_messages(SOURCE.replace(right, wrong))
    kind = "snix.build.v1.BuildRequest"
    with pytest.raises(AssertionError):
        compare(messages, KINDS[kind], descriptor(kind))


COMPILER = shutil.which("cc") or shutil.which("gcc")
RIGHT = """
#include "schema_rows.h"
#define ELEMENT(F) F(1, KEY, STRING, name, name) F(2, SINGLE, BOOL, flag, none)
TVIXB_MESSAGE(element, ELEMENT)
#define INNER(F) F(1, SORTED, STRING, names, name)
TVIXB_MESSAGE(inner, INNER)
#define ROOT(F)                             \\
  F(1, SORTED, MESSAGE(element), list, none) \\
  F(2, SINGLE, MESSAGE(inner), inner, none)  \\
  F(3, REPEATED, STRING, words, none)
TVIXB_MESSAGE(root, ROOT)
static const tvixb_relation relations[] = {
    {.left = TVIXB_LIST(root, list), .right = TVIXB_LIST(root, inner.names)}};
const struct tvixb_kind kind = TVIXB_KIND("a.Root", root, TVIXB_RELATIONS(relations));
"""
NESTED = "".join(
    f"#define NEST_{i}(F) F(1, SINGLE, MESSAGE({inner}), m, none)\n"
    f"TVIXB_MESSAGE(nest_{i}, NEST_{i})\n"
    for i, inner in enumerate(("inner", "nest_0", "nest_1", "nest_2", "nest_3"))
)
LISTS = "".join(f"F({i}, SORTED, STRING, list_{i}, name) " for i in range(1, 10))
MANY = f"#define MANY(F) {LISTS}\nTVIXB_MESSAGE(many, MANY)\n"


def compiles(source: str) -> bool:
    """Return whether a schema compiles; warnings are allowed."""
    assert COMPILER
    header = next(NATIVE.rglob("schema_rows.h"))
    command = [COMPILER, "-std=c11", "-fsyntax-only", f"-I{header.parent}", "-xc", "-"]
    done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    return done.returncode == 0


needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@needs_compiler
def test_right_rows_compile() -> None:
    assert compiles(RIGHT)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        pytest.param("F(3, REPEATED", "F(16, REPEATED", id="number-too-large"),
        pytest.param("F(3, REPEATED", "F(2, REPEATED", id="number-twice"),
        pytest.param("F(1, KEY, STRING", "F(3, KEY, STRING", id="numbers-descend"),
        pytest.param("BOOL, flag, none", "BOOL, flag, name", id="rule-for-bytes-of-a-bool"),
        pytest.param("words, none", "words, needle_index", id="rule-for-numbers-of-a-string"),
        pytest.param("list, none", "list, name", id="rule-of-a-message"),
        pytest.param("words, none", "words, nothing", id="no-such-rule"),
        pytest.param("SINGLE, BOOL", "KEY, BOOL", id="key-is-a-number"),
        pytest.param("SINGLE, BOOL", "REPEATED, BOOL", id="list-of-bools"),
        pytest.param("SINGLE, BOOL", "SORTED, PACKED(1)", id="sorted-packed"),
        pytest.param("SINGLE, MESSAGE(inner)", "SORTED, MESSAGE(inner)", id="list-in-a-list"),
        pytest.param("(root, list)", "(root, words)", id="relation-of-an-unsorted-list"),
        pytest.param("(root, list)", "(root, names)", id="relation-of-no-field"),
        pytest.param("MESSAGE(element)", "MESSAGE(other)", id="no-such-message"),
        pytest.param("\n#define ROOT", f"\n{NESTED}#define ROOT", id="path-too-long"),
        pytest.param("\n#define ROOT", f"\n{MANY}#define ROOT", id="too-many-lists"),
    ],
)
def test_wrong_rows_do_not_compile(right: str, wrong: str) -> None:
    assert RIGHT.count(right) == 1
    assert not compiles(RIGHT.replace(right, wrong))
