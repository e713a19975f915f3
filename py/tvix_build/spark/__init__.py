# SPDX-License-Identifier: MIT
"""Checks and hashes the messages in a binary column of an Apache Spark DataFrame, on all executors.

`python -m tvix_build.spark IN OUT` checks Parquet files; see docs/columnar.md.

Requires pyspark and its packages for Arrow, which the extra `spark` installs, also on the
executors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tvix_build._core.report import Kind, KindLike, Schema, SchemaLike

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["check", "distinct"]

_RESULTS = ("valid", "canonical", "digest", "violations", "violation_count")


def check(
    df: DataFrame,
    *,
    column: str | None = None,
    kind: KindLike = Kind.BUILD_REQUEST,
    schema: SchemaLike = Schema.TVIX_BUILD_V1,
) -> DataFrame:
    """Check each message in a column, and return a table of the results.

    | column | type |
    | --- | --- |
    | the columns of `df`, except for the messages | unchanged |
    | `valid`, `canonical` | boolean |
    | `digest` | binary of 32 bytes; null for a message without a digest |
    | `violations` | array of struct of `code`, `path`, `message`; at most 100 |
    | `violation_count` | bigint: the total number of violations |

    Invalid messages do not fail a task. A null is `malformed`. The evaluation is lazy. Each task
    checks its partition with one thread.

    Args:
        df: the table.
        column: the column of messages; by default the only binary column, or else the only void
            column.
        kind: the kind of the messages.
        schema: the schema of the messages.

    Returns:
        One row per row of `df`.

    Raises:
        ValueError: if the column, the kind or the schema is unknown, or another column has the name
            of a result.
    """
    from pyspark.sql.types import StructType

    kind, schema = Kind(kind), Schema(schema)
    place = _place(df, column)
    kept = [field for i, field in enumerate(df.schema) if i != place]
    for field in kept:
        if field.name.lower() in _RESULTS:
            raise ValueError(f"the column {field.name!r} has the name of a result; rename it")

    def check_all(batches: Iterator[Any]) -> Iterator[Any]:
        from tvix_build.spark import _arrow

        return _arrow.results(batches, place, kind, schema)

    return _numbered(df).mapInArrow(check_all, StructType([*kept, *_result_fields()]))


def distinct(
    df: DataFrame,
    *,
    column: str | None = None,
    kind: KindLike = Kind.BUILD_REQUEST,
    schema: SchemaLike = Schema.TVIX_BUILD_V1,
) -> DataFrame:
    """Count the messages in a column by digest.

    | column | type |
    | --- | --- |
    | `digest` | binary of 32 bytes; null in the row for messages without a digest |
    | `records` | bigint: the number of messages with this digest; nulls have no digest |
    | `encodings` | bigint: the number of different encodings of these messages, without nulls |

    If `encodings` is greater than 1, the same message occurs as different bytes. Executors exchange
    BLAKE3 hashes of the bytes instead of messages.

    Arguments as for `check`.

    Returns:
        One row per digest, in any order.

    Raises:
        ValueError: if the column, the kind or the schema is unknown.
    """
    from pyspark.sql import functions

    kind, schema = Kind(kind), Schema(schema)
    place = _place(df, column)

    def hash_all(batches: Iterator[Any]) -> Iterator[Any]:
        from tvix_build.spark import _arrow

        return _arrow.names(batches, kind, schema)

    return (
        _numbered(df)
        .select(str(place))
        .mapInArrow(hash_all, "digest binary, encoding binary")
        .groupBy("digest")
        .agg(
            functions.count("*").alias("records"),
            functions.countDistinct("encoding").alias("encodings"),
        )
    )


def _result_fields() -> list[Any]:
    from pyspark.sql import types as t

    texts = [t.StructField(name, t.StringType()) for name in ("code", "path", "message")]
    of_results = (
        t.BooleanType(),
        t.BooleanType(),
        t.BinaryType(),
        t.ArrayType(t.StructType(texts)),
        t.LongType(),
    )
    return [t.StructField(*both) for both in zip(_RESULTS, of_results, strict=True)]


def _numbered(df: DataFrame) -> DataFrame:
    """Rename the columns to numbers, because `mapInArrow` does not support all names."""
    return df.toDF(*map(str, range(len(df.columns))))


def _place(df: DataFrame, column: str | None) -> int:
    """Return the index of the column of messages."""
    fields = list(df.schema)
    if column is None:
        places = [i for i, field in enumerate(fields) if _type(field) == "binary"]
        places = places or [i for i, field in enumerate(fields) if _type(field) == "void"]
        expected = "one binary column"
    else:
        places = [i for i, field in enumerate(fields) if field.name == column]
        expected = f"one column {column!r}"
    if len(places) != 1:
        found = ", ".join(f"{field.name!r} ({_type(field)})" for field in fields) or "no columns"
        hint = "; choose one with column" if column is None and places else ""
        raise ValueError(f"expected {expected}, found {found}{hint}")
    if _type(fields[places[0]]) not in ("binary", "void"):
        raise ValueError(f"expected {expected} of binary, found {_type(fields[places[0]])}")
    return places[0]


def _type(field: Any) -> str:
    return str(field.dataType.simpleString())
