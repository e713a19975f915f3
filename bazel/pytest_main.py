# SPDX-License-Identifier: MIT
"""Runs pytest in a Bazel test: results go to test.xml, `--test_filter=X` is pytest's -k."""

import os
import sys

import pytest


def main() -> int:
    """Runs the files that the arguments name."""
    arguments = ["-p", "no:cacheprovider", "--color=no", *sys.argv[1:]]
    if "XML_OUTPUT_FILE" in os.environ:
        arguments.append("--junitxml=" + os.environ["XML_OUTPUT_FILE"])
    if "TESTBRIDGE_TEST_ONLY" in os.environ:
        arguments += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
    if "TEST_TMPDIR" in os.environ:
        arguments.append("--basetemp=" + os.path.join(os.environ["TEST_TMPDIR"], "pytest"))
    return int(pytest.main(arguments))


if __name__ == "__main__":
    sys.exit(main())
