# SPDX-License-Identifier: MIT
"""The tables of the C core have the fields of the descriptors: all of them, and no others.

Read from the sources: a table may say a field's name, number or type wrong where no vector shows
it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

import reference
from tvix_build._core.report import TYPES, MessageType

NATIVE = Path(__file__).parents[2] / "native"

_TABLE = re.compile(r"^static const tvixb_message (\w+) = \{(.*?)^\};", re.M | re.S)
_ROW = re.compile(r"\[(\d+)\] = \{(.*?)\}", re.S)
_KIND = re.compile(r'^    \{\s*\.name = "([^"]+)",\s*\.message = &(\w+),', re.M)
_INCLUDE = re.compile(r'((?:^#define CASTORE_.*\n)+)#include "schema_castore.h"\n', re.M)


class Field(NamedTuple):
    """A field as a table or a descriptor says it; `message` names a table, and is not compared."""

    name: str
    number: int
    tag_number: int
    type: str
    repeated: bool
    oneof: bool
    message: str | None = None


def read_source(path: Path) -> str:
    """Return a schema's source with its castore in the place of each #include."""
    castore = next(NATIVE.rglob("schema_castore.h")).read_text()

    def expand(match: re.Match[str]) -> str:
        prefix = re.search(r"CASTORE_TABLE\(name\) (\w*?)(?:##)?name\n", match[1])
        assert prefix
        return re.sub(r"CASTORE_TABLE\((\w+)\)", rf"{prefix[1]}\1", castore)

    return _INCLUDE.sub(expand, path.read_text())


def read_field(number: str, row: str) -> Field:
    """Return what a row of a table says."""
    members = dict(re.findall(r"\.(\w+) = (&?\w+|\"\w+\")", row))
    declared = re.search(r"TYPE\((\d+), (\w+)\)", row)
    assert declared, row
    return Field(
        members["name"].strip('"'),
        int(number),
        int(declared[1]),
        declared[2],
        members.get("repeated") == "true",
        members.get("oneof") == "true",
        members.get("message", "").lstrip("&") or None,
    )


def read_tables(source: str) -> dict[str, list[Field]]:
    """Return the fields of each table."""
    return {
        name: [read_field(*row) for row in _ROW.findall(body)]
        for name, body in _TABLE.findall(source)
    }


def declared_field(field: FieldDescriptorProto) -> Field:
    """Return what a table should say of a field."""
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_")
    if repeated and kind == "UINT64":
        kind, repeated = "PACKED", False
    oneof = field.HasField("oneof_index")
    return Field(field.name, field.number, field.number, kind, repeated, oneof)


def compare(tables: dict[str, list[Field]], table: str, message: Any) -> None:
    """Compare a table, and the tables of its fields, with a descriptor."""
    declared = DescriptorProto()
    message.CopyToProto(declared)
    fields = sorted(declared.field, key=lambda field: field.number)
    found = [row._replace(message=None) for row in tables[table]]
    assert found == [declared_field(field) for field in fields], f"{table}, {message.full_name}"
    for row in tables[table]:
        child = message.fields_by_number[row.number].message_type
        assert (row.message is None) == (child is None)
        if row.message:
            compare(tables, row.message, child)


SOURCES = {path.name: read_source(path) for path in sorted(NATIVE.rglob("schema_*_v1.h"))}
KINDS = {
    name: (file, table) for file, source in SOURCES.items() for name, table in _KIND.findall(source)
}


def test_every_kind_has_a_table() -> None:
    assert set(KINDS) == {kind.full_name for kind in TYPES}


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_tables_have_the_fields_of_the_descriptors(kind: MessageType) -> None:
    file, table = KINDS[kind.full_name]
    tables = read_tables(SOURCES[file])
    compare(tables, table, reference.message_class(kind.kind, kind.schema).DESCRIPTOR)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"scratch_paths"', '"scratch_path"'),
        ('[4] = {.name = "scratch_paths"', '[11] = {.name = "scratch_paths"'),
        ("TYPE(4, STRING)", "TYPE(11, STRING)"),
        ("TYPE(2, BYTES)", "TYPE(2, STRING)"),
        ("TYPE(4, BOOL)", "TYPE(4, UINT64)"),
        (".repeated = true", ".repeated = false"),
        (".oneof = true", ".oneof = false"),
        (".message = &env_var", ".message = &node"),
    ],
)
def test_wrong_tables_are_found(right: str, wrong: str) -> None:
    kind = next(kind for kind in TYPES if kind.full_name == "snix.build.v1.BuildRequest")
    file, table = KINDS[kind.full_name]
    assert right in SOURCES[file]
    tables = read_tables(SOURCES[file].replace(right, wrong))
    with pytest.raises(AssertionError):
        compare(tables, table, reference.message_class(kind.kind, kind.schema).DESCRIPTOR)
