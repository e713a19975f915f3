# SPDX-License-Identifier: MIT
"""The job: checks messages in Parquet, writes what was found as Parquet, prints a summary."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tvix_build import Kind, Schema, ViolationCode
from tvix_build.spark import check

_HELP = """\
Check the messages in Parquet files and write what was found.

IN is a file or folder, OUT a folder that must not exist yet. It gets a file of each task, with a
row for each record of IN: its other columns, valid, canonical, digest, violations and
violation_count. Without the file _SUCCESS in it, it is not whole."""
_END = "exit status: 0 all valid, 1 something invalid, 2 usage, or a file that cannot be read"


def run(session: Any, options: argparse.Namespace) -> int:
    """Do it in a session of Spark, and print the summary; the exit status.

    Raises:
        ValueError: as `check`.
        Exception: what Spark raises.
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
    """What there is how often, the codes of violations by the records that have them. Of what was
    written, so that no task that Spark repeated counts twice."""
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
    """The first line of what lies behind an error."""
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
        "--column", metavar="NAME", help="that holds the messages; by default the only binary one"
    )
    parser.add_argument(
        "--kind",
        choices=[kind.value for kind in Kind],
        default=Kind.BUILD_REQUEST.value,
        help="what the messages are (%(default)s)",
    )
    parser.add_argument(
        "--schema",
        choices=[schema.value for schema in Schema],
        default=Schema.TVIX_BUILD_V1.value,
        help="of which version of the protocol (%(default)s)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the job with the session that there is, or one of its own; the exit status."""
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
