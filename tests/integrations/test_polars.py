# SPDX-License-Identifier: MIT
"""The namespace `tvix` in polars says what the Python API says of the same messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import polars
import pytest

import real_data
import tvix_build
import tvix_build.polars
from bench.corpora import messages_of
from few_messages import later_messages, messages
from tvix_build import ValidationError
from tvix_build._core.report import KindLike, SchemaLike

NAMES = ("valid", "canonical", "digest", "violations", "check", "canonicalize")
Items = Sequence[bytes | None]


def expected(
    item: bytes | None, kind: KindLike, schema: SchemaLike = "tvix.build.v1"
) -> dict[str, Any]:
    """What the expressions give for a message."""
    if item is None:
        return dict.fromkeys(NAMES)
    report = tvix_build.check(item, kind=kind, schema=schema)
    violations = [
        {"code": one.code.value, "path": one.path, "message": one.message}
        for one in report.violations
    ]
    values = (report.valid, report.canonical, report.digest, violations)
    said = dict(zip(NAMES, values, strict=False))
    try:
        encoding = tvix_build.canonicalize(item, kind=kind, schema=schema)
    except ValidationError:
        encoding = None
    return {**said, "check": said, "canonicalize": encoding}


def frame_of(items: Items) -> polars.DataFrame:
    return polars.DataFrame({"request": items}, schema={"request": polars.Binary})


def expressions(kind: KindLike, **schema: str) -> list[polars.Expr]:
    """One for each name."""
    namespace = polars.col("request").tvix
    return [getattr(namespace, name)(kind=kind, **schema).alias(name) for name in NAMES]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["build-request", "directory"])
@pytest.mark.parametrize(
    "items",
    [
        [],
        [None],
        [None, None, *messages(), None],
        messages(),
        [b""],
        [*messages(), None] * 500,
    ],
    ids=len,
)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_every_expression(
    items: Items, kind: KindLike, engine: Literal["in-memory", "streaming"]
) -> None:
    query = frame_of(items).lazy().select(expressions(kind))
    found = query.collect(engine=engine)
    assert found.schema == query.collect_schema()
    assert found.to_dicts() == [expected(item, kind) for item in items]


@pytest.mark.parametrize("kind", ["build-request", "build"])
@pytest.mark.parametrize(
    "schema", ["tvix.build.v1", "tvix.build.v1@2024", tvix_build.Schema.SNIX_BUILD_V1]
)
def test_schemas(kind: KindLike, schema: SchemaLike) -> None:
    items = [*later_messages(), *messages(), b"\x0a\x02\x12\x00", None]
    found = frame_of(items).select(expressions(kind, schema=schema))
    assert found.to_dicts() == [expected(item, kind, schema) for item in items]


def test_no_such_schema() -> None:
    for name in NAMES:
        with pytest.raises(ValueError, match=r"tvix\.build\.v2"):
            getattr(polars.col("request").tvix, name)(schema="tvix.build.v2")


def test_chunks_and_slices() -> None:
    parts = [frame_of(messages()), frame_of([None]), frame_of([]), frame_of(messages())]
    frame = polars.concat(parts, rechunk=False)
    assert frame.n_chunks() > 2
    for some in (frame, frame[3:12]):
        items = some["request"].to_list()
        found = some.select(expressions("build-request")).to_dicts()
        assert found == [expected(item, "build-request") for item in items]


def test_the_null_type_is_a_column_of_nulls() -> None:
    for count in (0, 3):
        frame = polars.DataFrame({"request": [None] * count})
        assert frame.schema["request"] == polars.Null
        for some in (frame, frame.lazy()):
            found = some.lazy().select(expressions("build-request")).collect()
            assert found.to_dicts() == [dict.fromkeys(NAMES)] * count
            assert found.schema["digest"] == polars.Binary


def test_within_a_query() -> None:
    namespace = polars.col("request").tvix
    frame = frame_of([*messages(), messages()[0], None])
    found = (
        frame.lazy()
        .filter(namespace.valid())
        .group_by(namespace.digest().alias("digest"))
        .agg(polars.len().alias("records"), namespace.canonical().alias("canonical"))
        .sort("records", descending=True)
        .collect()
    )
    assert found["records"].to_list() == [2, 1, 1]
    assert found["digest"][0] == tvix_build.digest(messages()[0])
    assert found["canonical"][0].to_list() == [True, True]


@pytest.mark.parametrize(
    ("kind", "column", "error"),
    [
        ("derivation", [b""], ValueError),
        ("build-request", ["text"], TypeError),
        ("build-request", [1], TypeError),
    ],
)
def test_errors(kind: KindLike, column: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        polars.DataFrame({"request": column}).select(expressions(kind))


@pytest.mark.parametrize("name", ["direct.binpbs", "closure.binpbs"])
def test_real_requests(name: str) -> None:
    items = list(messages_of(real_data.read(name)))[:2000]
    check: Callable[..., polars.Expr] = polars.col("request").tvix.check
    found = frame_of([*items]).select(check()).unnest("request")
    reports = tvix_build.check_batch(items)
    assert found["valid"].to_list() == list(reports.valid)
    assert found["digest"].to_list() == [report.digest for report in reports]
