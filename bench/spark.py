# SPDX-License-Identifier: MIT
"""A session of Spark in this process, and how much of a job is the engine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tvix_build import Kind, Schema


@contextmanager
def session(cores: int) -> Iterator[Any]:
    """A session with the given number of concurrent tasks."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYSPARK_PYTHON"] = sys.executable

    from pyspark.sql import SparkSession

    builder: Any = SparkSession.builder.master(f"local[{cores}]")
    options = {"spark.ui.enabled": "false", "spark.driver.memory": "2g"}
    for name, value in options.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    try:
        yield made
    finally:
        made.stop()


class Watched:
    """A function, and how much CPU time its calls take.

    Attributes:
        seconds: of CPU, of all threads that called it.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        begin = time.thread_time()
        try:
            return self._function(*arguments, **options)
        finally:
            self.seconds += time.thread_time() - begin


@contextmanager
def watched(module: Any) -> Iterator[Watched]:
    """Have a module's `check_batch` watched."""
    function = module.check_batch
    module.check_batch = Watched(function)
    try:
        yield module.check_batch
    finally:
        module.check_batch = function


def engine_seconds(spark: Any, source: Path, directory: Path) -> float:
    """CPU seconds in the engine's calls of a `check` of a column `request`, in all tasks.

    Args:
        spark: the session.
        source: Parquet.
        directory: in which tasks say what they took.
    """

    def check_all(batches: Iterator[Any]) -> Iterator[Any]:
        from tvix_build.spark import _arrow

        with watched(_arrow) as engine:
            yield from _arrow.results(batches, 0, Kind.BUILD_REQUEST, Schema.TVIX_BUILD_V1)
        (directory / f"{time.time_ns()}-{os.getpid()}").write_text(str(engine.seconds))

    from tvix_build.spark import check

    requests = spark.read.parquet(str(source)).select("request")
    requests.mapInArrow(check_all, check(requests).schema).write.format("noop").mode(
        "overwrite"
    ).save()
    return sum(float(path.read_text()) for path in directory.iterdir())
