# SPDX-License-Identifier: MIT
"""SQL functions for DuckDB that check, canonicalize and hash messages.

    >>> import duckdb
    >>> import tvix_build.duckdb
    >>> connection = duckdb.connect()
    >>> tvix_build.duckdb.register(connection)
    >>> connection.sql("SELECT tvix_valid('\\x0A\\x09/bin/true'::BLOB)").fetchall()
    [(True,)]

Requires duckdb 1.3 or later, pyarrow and numpy, which the extra `duckdb` installs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tvix_build._core.batch import canonicalize_batch, check_batch
from tvix_build._core.report import Kind, KindLike, MessageType, Schema, SchemaLike, message_type

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["register"]

_LEAST = (1, 3)

_VIOLATIONS = "STRUCT(code VARCHAR, path VARCHAR, message VARCHAR)[]"
_COLUMNS = {
    "valid": "BOOLEAN",
    "canonical": "BOOLEAN",
    "digest": "BLOB",
    "violations": _VIOLATIONS,
}
_REPORT = f"STRUCT({', '.join(f'{name} {type}' for name, type in _COLUMNS.items())})"


def register(
    connection: DuckDBPyConnection,
    *,
    kind: KindLike = Kind.BUILD_REQUEST,
    prefix: str = "tvix_",
    schema: SchemaLike = Schema.TVIX_BUILD_V1,
) -> None:
    """Define SQL functions of a message, a BLOB, in a connection and its cursors.

    | function | result |
    | --- | --- |
    | `tvix_valid` | BOOLEAN |
    | `tvix_canonical` | BOOLEAN: whether the message is valid and canonical |
    | `tvix_digest` | BLOB of 32 bytes; NULL if the message has no digest |
    | `tvix_violations` | a list of STRUCT(code, path, message) |
    | `tvix_check` | STRUCT(valid, canonical, digest, violations), computed in one pass |
    | `tvix_canonicalize` | BLOB, the canonical encoding; NULL if there is none |

    NULL input gives NULL. Invalid messages do not fail a query. DuckDB calls the functions in its
    own threads (`SET threads`); they start no others.

    Args:
        connection: the connection in which to define the functions.
        kind: the kind of the messages.
        prefix: the prefix of the names, instead of `tvix_`; for the functions of another kind or
            schema.
        schema: the schema of the messages.

    Raises:
        ValueError: if the kind or the schema is unknown.
        ImportError: if DuckDB is older than 1.3.
        duckdb.Error: if functions with these names exist.
    """
    _check_version()
    wanted = message_type(Kind(kind), Schema(schema))
    functions: dict[str, tuple[Callable[[Any, MessageType], Any], str]] = {
        "check": (_check, _REPORT),
        "canonicalize": (_canonicalize, "BLOB"),
    }
    for column, column_type in _COLUMNS.items():
        functions[column] = (partial(_column, name=column), column_type)
    for name, (function, returned) in functions.items():
        connection.create_function(
            f"{prefix}{name}",
            partial(_of_present, function, wanted),
            ["BLOB"],
            returned,
            type="arrow",
            null_handling="special",
        )


def _check_version() -> None:
    import duckdb

    # Before 1.3 (duckdb/duckdb#17574), a null in a fixed_size_binary array shifts the values after
    # it, so that rows would get the digests of other rows.
    found = re.match(r"(\d+)\.(\d+)", duckdb.__version__)
    if found and tuple(map(int, found.groups())) < _LEAST:
        raise ImportError(
            f"expected DuckDB 1.3 or later, found {duckdb.__version__}, which returns wrong values "
            "for rows after a NULL: pip install 'tvix-build[duckdb]'",
            name="duckdb",
        )


def _check(messages: Any, kind: MessageType) -> Any:
    """Return the results of an Arrow array of messages without nulls."""
    import pyarrow

    return pyarrow.array(check_batch(messages, kind=kind.kind, threads=1, schema=kind.schema))


def _column(messages: Any, kind: MessageType, name: str) -> Any:
    return _check(messages, kind).field(name)


def _canonicalize(messages: Any, kind: MessageType) -> Any:
    accepted = _column(messages, kind, "digest").is_valid()
    return _where(accepted, messages, lambda some: _encodings(some, kind))


def _encodings(messages: Any, kind: MessageType) -> Any:
    import pyarrow

    batch = canonicalize_batch(messages, kind=kind.kind, threads=1, schema=kind.schema)
    buffers = [None, pyarrow.py_buffer(batch.offsets), pyarrow.py_buffer(batch.data)]
    return pyarrow.Array.from_buffers(pyarrow.large_binary(), len(batch), buffers)


def _of_present(
    function: Callable[[Any, MessageType], Any], kind: MessageType, messages: Any
) -> Any:
    """Call a function with the messages that are not null; the result is null for the others."""
    if not messages.null_count:
        return function(messages, kind)
    return _where(messages.is_valid(), messages, lambda some: function(some, kind))


def _where(wanted: Any, messages: Any, function: Callable[[Any], Any]) -> Any:
    """Call a function with the selected messages; the result is null for the others."""
    from pyarrow import compute

    places = compute.subtract(compute.cumulative_sum(wanted.cast("int64")), 1)
    return function(messages.filter(wanted)).take(compute.if_else(wanted, places, None))
