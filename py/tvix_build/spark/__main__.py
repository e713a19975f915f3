# SPDX-License-Identifier: MIT
"""The Spark job: checks messages in Parquet files, writes the results as Parquet, and prints a
summary."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tvix_build import Kind, Schema, ViolationCode
from tvix_build.spark import check

_HELP = """\
Check the messages in Parquet files, and write the results.

IN is a file or a directory. OUT is a directory, which must not exist yet. The job writes one file
per task to OUT, with one row per record of IN: the other columns of the record, valid, canonical,
digest, violations and violation_count. OUT is complete when it contains the file _SUCCESS."""
_END = "exit status: 0 all messages are valid, 1 a message is invalid, 2 wrong usage or an error"


def run(session: Any, options: argparse.Namespace) -> int:
    """Run the job in a Spark session, print the summary, and return the exit status.

    Raises:
        ValueError: as `check`.
        Exception: any error of Spark.
    """
    source = session.read.parquet(options.source)
    found = check(source, column=options.column, kind=options.kind, schema=options.schema)
    found.write.parquet(options.target)
    counts = _counts(session.read.schema(found.schema).parquet(options.target))
    name_width = max(map(len, counts))
    count_width = max(len(f"{count:,}") for count in counts.values())
    for name, count in counts.items():
        print(f"{name:<{name_width}}  {count:>{count_width},}")
    return 1 if counts["invalid"] else 0


def _counts(results: Any) -> dict[str, int]:
    """Return the counts of records, and of records by violation code. They are read from the
    written results, so that repeated tasks are not counted twice."""
    from pyspark.sql import functions as f

    whole = results.agg(
        f.count("*").alias("records"),
        f.count(f.when(f.col("valid"), 1)).alias("valid"),
        f.count(f.when(f.col("canonical"), 1)).alias("canonical"),
    ).first()
    counts = dict(whole.asDict())
    counts["invalid"] = counts["records"] - counts["valid"]
    if counts["invalid"]:
        code = f.explode(f.array_distinct("violations.code")).alias("code")
        codes = dict(results.where("NOT valid").select(code).groupBy("code").count().collect())
        counts |= {
            f"  {one.value}": codes[one.value] for one in ViolationCode if one.value in codes
        }
    return counts


def _reason(error: BaseException) -> str:
    """Return the first line of the root cause of an error."""
    java = getattr(error, "java_exception", None)  # of py4j
    if java is None:
        return (str(error).splitlines() or [type(error).__name__])[0]
    while java.getCause() is not None:
        java = java.getCause()
    return str(java.toString()).partition("\n")[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tvix_build.spark",
        description=_HELP,
        epilog=_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="IN")
    parser.add_argument("target", metavar="OUT")
    parser.add_argument(
        "--column", metavar="NAME", help="column of messages; the default is the only binary column"
    )
    parser.add_argument(
        "--kind",
        choices=[kind.value for kind in Kind],
        default=Kind.BUILD_REQUEST.value,
        help="message type (%(default)s)",
    )
    parser.add_argument(
        "--schema",
        choices=[schema.value for schema in Schema],
        default=Schema.TVIX_BUILD_V1.value,
        help="protocol version of the messages (%(default)s)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the job in the active Spark session or in a new one, and return the exit status."""
    options = _parser().parse_args(arguments)

    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    session = SparkSession.builder.appName("tvix-build").getOrCreate()
    try:
        return run(session, options)
    except (Py4JError, PySparkException, ValueError) as error:
        print(f"tvix-build: {_reason(error)}", file=sys.stderr)
        return 2
    finally:
        session.stop()


if __name__ == "__main__":
    sys.exit(main())
