# SPDX-License-Identifier: MIT
"""Run pytest in a Bazel test: write results to test.xml, pass `--test_filter=X` to pytest's -k, and
run one shard of the tests."""

from __future__ import annotations

import os
import sys
from itertools import chain
from pathlib import Path

import pytest

UNICODE_TABLES = Path(__file__).absolute().parent / "unicode_tables"
"""What Hypothesis would otherwise make."""


class Shard:
    """A pytest plugin that keeps every n-th test.

    The tests of a file with the mark `together` count as one.

    Args:
        index: the shard, from 0.
        count: the number of shards.
    """

    def __init__(self, index: int, count: int) -> None:
        self._index = index
        self._count = count

    @pytest.hookimpl(trylast=True)  # after -m
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Pytest's hook."""
        groups: dict[str, list[pytest.Item]] = {}
        for item in items:
            together = item.get_closest_marker("together") is not None
            groups.setdefault(str(item.path) if together else item.nodeid, []).append(item)
        items[:] = chain.from_iterable(list(groups.values())[self._index :: self._count])


def main() -> int:
    """Run the test files that the arguments name."""
    arguments = ["-p", "no:cacheprovider", "--color=no", *sys.argv[1:]]
    plugins = []
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(UNICODE_TABLES)
    if "XML_OUTPUT_FILE" in os.environ:
        arguments.append("--junitxml=" + os.environ["XML_OUTPUT_FILE"])
    if "TESTBRIDGE_TEST_ONLY" in os.environ:
        arguments += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
    if "TEST_TMPDIR" in os.environ:
        arguments.append("--basetemp=" + os.path.join(os.environ["TEST_TMPDIR"], "pytest"))
    if "TEST_SHARD_STATUS_FILE" in os.environ:
        Path(os.environ["TEST_SHARD_STATUS_FILE"]).touch()  # Sharding is supported.
    if "TEST_TOTAL_SHARDS" in os.environ:
        index, count = (int(os.environ[f"TEST_{name}"]) for name in ("SHARD_INDEX", "TOTAL_SHARDS"))
        plugins.append(Shard(index, count))
    status = pytest.main(arguments, plugins)
    if plugins and status == pytest.ExitCode.NO_TESTS_COLLECTED:
        return 0  # Of a few tests, not every shard gets one.
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
