# SPDX-License-Identifier: MIT
"""The rows of builds: a result by the digest and the schema of its request."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import DecodeError

from tvix_build._core.batch import type_of
from tvix_build._core.check import canonicalize
from tvix_build._core.engine import DIGEST_SIZE, is_canonical
from tvix_build._core.report import Kind, Schema, SchemaLike, message_type

if TYPE_CHECKING:
    from tvix_build.builders.interface import BuildResult

# The schema is in the key, because the same bytes can be requests of several schemas.
CREATE = f"""
CREATE TABLE build (
    digest BLOB NOT NULL CHECK (typeof(digest) = 'blob' AND length(digest) = {DIGEST_SIZE}),
    schema TEXT NOT NULL,
    response BLOB NOT NULL CHECK (typeof(response) = 'blob'),
    outputs TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (digest, schema)
)
"""
_PUT = "INSERT OR REPLACE INTO build VALUES (?, ?, ?, ?, ?)"
_COLUMNS = "digest, schema, CAST(response AS BLOB), outputs, record"
_GET = f"SELECT {_COLUMNS} FROM build WHERE digest = ? AND schema = ?"
_NEXT = f"SELECT rowid, {_COLUMNS} FROM build WHERE rowid > ? ORDER BY rowid LIMIT 1"


class Row(NamedTuple):
    """A build as it is stored."""

    digest: bytes
    schema: str
    response: bytes
    outputs: str
    record: str


def make_row(result: BuildResult[Any], schema: SchemaLike | None) -> Row:
    """Return the row of a build.

    Raises:
        ValidationError: if the response has no canonical encoding.
        TypeError: if the response is neither bytes-like nor a response of a supported schema.
    """
    found = type_of(result.response, Kind.BUILD, schema).schema
    outputs = {path: node.SerializeToString().hex() for path, node in result.outputs.items()}
    return Row(
        result.record.request_digest,
        found.value,
        canonicalize(result.response, kind=Kind.BUILD, schema=found),
        json.dumps(outputs),
        json.dumps(result.record.to_json()),
    )


def read_row(row: Row) -> tuple[Schema, BuildResult[bytes]]:
    """Return the schema and the result of a row.

    Raises:
        ValueError: if the row is damaged.
    """
    from tvix.castore.protos.castore_pb2 import Node
    from tvix_build.builders.interface import BuildRecord, BuildResult

    try:
        schema = Schema(row.schema)
        outputs = {
            path: Node.FromString(bytes.fromhex(node))
            for path, node in json.loads(row.outputs).items()
        }
        record = BuildRecord.from_json(json.loads(row.record))
    except (AttributeError, DecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected a build, found a damaged row: {error}") from None
    if not is_canonical(message_type(Kind.BUILD, schema), row.response):
        raise ValueError("expected a canonical response, found other bytes")
    if record.request_digest != row.digest:
        raise ValueError(
            f"expected a build of this request, found one of {record.request_digest.hex()}"
        )
    return schema, BuildResult(row.response, outputs, record)


def put_rows(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Store builds instead of earlier ones of the same requests."""
    connection.executemany(_PUT, rows)


def get_row(connection: sqlite3.Connection, digest: bytes, schema: Schema) -> Row | None:
    """Return the build of a request; None if there is none."""
    row = connection.execute(_GET, (digest, schema.value)).fetchone()
    return row and Row(*row)


def next_row(connection: sqlite3.Connection, last: int) -> tuple[int, Row] | None:
    """Return the number and the contents of the row after row `last`; None if there is none."""
    row = connection.execute(_NEXT, (last,)).fetchone()
    return row and (row[0], Row(*row[1:]))
