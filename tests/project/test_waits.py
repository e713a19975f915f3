# SPDX-License-Identifier: MIT
"""No test depends on the speed of the machine: tests wait for events, with one generous limit.

This is read from the sources of the tests, including those that a test runs in another process.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLOCK = re.compile(
    r"\b(?:sleep\((?!0\))|Timer\(|alarm\(|timeout=\d|(?:wait|join|result|exception)\(\d"
    r"|(?:monotonic|perf_counter|process_time)(?:_ns)?\()"
)
ALLOWED = {
    "cli/test_cli_signals.py": 6,  # random moments of a run
    "mutation/run_mutants.py": 3,  # a tool, which reports how long it ran
    "plan/test_plan_run.py": 1,  # the limit of a build that never ends
    "project/test_public_api.py": 3,  # types of arguments; nothing is called
    "proxy/test_serve.py": 1,  # a deadline that the builder receives
    "proxy/test_serve_limits.py": 1,  # makes each round of an event loop long
    "support/attacks.py": 11,  # how long an attack runs, and a good client waits
    "support/hostile.py": 2,  # prints the time of worst cases
    "support/soak.py": 8,  # how long it runs
    "support/throughput.py": 4,  # how long it measures, and the CPU time of the client
    "support/waiting.py": 4,
}
"""The number of lines of a file that may use the clock."""
MARK = "pytest.mark." + "exhaustive"


def uses(text: str) -> list[str]:
    """Return the lines that use the clock."""
    return [line for line in text.splitlines() if CLOCK.search(line)]


def test_no_test_knows_the_clock() -> None:
    files = {str(path.relative_to(TESTS)): path for path in sorted(TESTS.rglob("*.py"))}
    own = str(Path(__file__).relative_to(TESTS))
    found = {name: uses(path.read_text()) for name, path in files.items() if name != own}
    assert {name: len(lines) for name, lines in found.items() if lines} == ALLOWED, found


@pytest.mark.parametrize(
    "line",
    [
        "time.sleep(0.05)",
        "await asyncio.sleep(1)",
        "process.wait(timeout=60)",
        "process.wait(60)",
        "thread.join(5)",
        "threading.Timer(0.3, stop).start()",
        "future.result(60)",
        "time.monotonic() - begin",
    ],
)
def test_uses_of_the_clock_are_found(line: str) -> None:
    assert uses(line) == [line]
    assert uses("process.wait(timeout=LIMIT)\nawait asyncio.sleep(0)  # a turn") == []


def test_bazel_knows_the_directories_with_tests_that_repeat() -> None:
    """tools/test leaves out the tests with the mark `exhaustive`, tools/test --all runs them."""
    build = (TESTS / "BUILD.bazel").read_text()
    listed = re.search(r"^EXHAUSTIVE_ROOMS = \{(.*?)\}", build, re.DOTALL | re.MULTILINE)
    apart = re.search(r"^UNSANDBOXED_TESTS = \[(.*?)\]", build, re.DOTALL | re.MULTILINE)
    assert listed
    assert apart
    files = [
        path.relative_to(TESTS) for path in TESTS.rglob("test_*.py") if MARK in path.read_text()
    ]
    rooms = {path.parts[0] for path in files if str(path) not in re.findall('"(.*)"', apart[1])}
    assert set(re.findall('"(.*)"', listed[1])) == rooms
