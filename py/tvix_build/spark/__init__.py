# SPDX-License-Identifier: MIT
"""Checks and hashes messages in Apache Spark: a binary column of a DataFrame, by all executors.

`python -m tvix_build.spark IN OUT` does so for Parquet; see docs/columnar.md.

Needs pyspark and what that needs for Arrow, the extra `spark`; all of it where executors run, too.
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
    """Check each message of a column.

    | column | type |
    | --- | --- |
    | those of `df` but the messages | as they are |
    | `valid`, `canonical` | boolean |
    | `digest` | binary of 32 bytes; null where there is none |
    | `violations` | array of struct of `code`, `path`, `message`; the first 100 |
    | `violation_count` | bigint: how many there are in truth |

    A bad message fails no task; a null is one that is `malformed`. Lazy, as all of Spark. A task
    checks its partition with one thread.

    Args:
        df: a table.
        column: its column of messages; by default the only one of binary, or else the only one of
            nulls (void).
        kind: what the messages are.
        schema: of which version of the protocol.

    Returns:
        A row for each row.

    Raises:
        ValueError: if there is no such column, kind or schema, or a column is called as one of the
            results.
    """
    from pyspark.sql.types import StructType

    kind, schema = Kind(kind), Schema(schema)
    place = _place(df, column)
    kept = [field for i, field in enumerate(df.schema) if i != place]
    for field in kept:
        if field.name.lower() in _RESULTS:
            raise ValueError(
                f"expected no column called as the result {field.name.lower()!r}, found one: "
                "rename it"
            )

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
    """Count the messages of a column by digest.

    | column | type |
    | --- | --- |
    | `digest` | binary of 32 bytes; null in the row that counts messages without one, if any |
    | `records` | bigint: how many have it, nulls among those without |
    | `encodings` | bigint: in how many ways these are encoded; nulls are none |

    Where `encodings` is more than 1, the same message comes as different bytes. Between executors
    go hashes, no messages: bytes are the same if their BLAKE3 is.

    Arguments as for `check`.

    Returns:
        A row for each digest, in no order.

    Raises:
        ValueError: if there is no such column, kind or schema.
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
    """With names that `mapInArrow` can use, whatever they were."""
    return df.toDF(*map(str, range(len(df.columns))))


def _place(df: DataFrame, column: str | None) -> int:
    """Which column has the messages."""
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
        hint = ": name one with column" if column is None and places else ""
        raise ValueError(f"expected {expected}, found {found}{hint}")
    if _type(fields[places[0]]) not in ("binary", "void"):
        raise ValueError(f"expected {expected} of binary, found {_type(fields[places[0]])}")
    return places[0]


def _type(field: Any) -> str:
    return str(field.dataType.simpleString())
