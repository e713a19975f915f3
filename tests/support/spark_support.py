# SPDX-License-Identifier: MIT
"""A local Spark cluster: two executors, each in its own process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyspark
import pytest
from pyspark.sql import SparkSession

from cli_support import environment
from waiting import LIMIT

OPTIONS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.executor.memory": "512m",
    "spark.sql.shuffle.partitions": "2",
    "spark.network.timeout": "3600s",
    "spark.ui.enabled": "false",
    # Compiling takes longer than the short tests.
    "spark.sql.codegen.wholeStage": "false",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


def variables(home: Path) -> dict[str, str]:
    """Make the directory `home`. Return the environment of a driver that uses it.

    Executors write to the directory of Spark, which may not be writable, so `home` has links to it.
    """
    home.mkdir()
    for part in Path(pyspark.__file__).parent.iterdir():
        (home / part.name).symlink_to(part)
    return {
        "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": environment()["PYTHONPATH"],
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_DIRS": str(home / "blocks"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


@contextmanager
def cluster(home: Path) -> Iterator[SparkSession]:
    """Yield a session with two executors."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(home).items():
            patch.setenv(name, value)
        builder: Any = SparkSession.builder
        for name, value in OPTIONS.items():
            builder = builder.config(name, value)
        session = builder.master("local-cluster[2,1,1024]").getOrCreate()
        try:
            session.sparkContext.setLogLevel("OFF")
            yield session
        finally:
            session.stop()
            # End the Java process, which otherwise runs as long as this process.
            gateway = pyspark.SparkContext._gateway
            gateway.shutdown()
            gateway.proc.stdin.close()
            gateway.proc.wait(timeout=LIMIT)


def parent(process: int) -> int:
    """Return the parent of a process."""
    status = Path(f"/proc/{process}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])


def executor_of(worker: int) -> int:
    """Return the executor, a Java process, of a Python worker process."""
    while os.path.basename(os.readlink(f"/proc/{worker}/exe")) != "java":
        worker = parent(worker)
    return worker
