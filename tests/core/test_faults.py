# SPDX-License-Identifier: MIT
"""Faults around the library: fork after use, many threads, buffers that change meanwhile, and no
memory. What may not crash runs in a process of its own."""

from __future__ import annotations

from array import array
from threading import Thread

import pytest

import few_messages
import tvix_build
from cli_support import run_python
from tvix_build._core import engine
from tvix_build._core.engine import Messages
from tvix_build._core.report import message_type
from tvix_build._native import lib

pytestmark = pytest.mark.slow

MESSAGES = few_messages.messages()


def run(code: str, *arguments: object) -> str:
    """What a Python process prints."""
    done = run_python(code, *arguments)
    assert done.status == 0, done.stderr[-2000:]
    return done.stdout.decode()


def said(reports: tvix_build.BatchReport) -> list[object]:
    """All that a report says."""
    return [(one.valid, one.canonical, one.digest, one.violations) for one in reports]


FORK = """
import os, sys, threading
import few_messages, tvix_build

def check():
    reports = tvix_build.check_batch(few_messages.messages() * 5000, threads=4)
    return bytes(reports.digests), list(reports.invalid), [str(reports[i]) for i in range(8)]

expected = check()
busy = sys.argv[1] == "True"
stop = threading.Event()
def work():
    while not stop.is_set():
        check()
threads = [threading.Thread(target=work) for _ in range(2 * busy)]
for thread in threads:
    thread.start()
for _ in range(5):
    child = os.fork()
    if not child:
        found = check()
        os._exit(0 if found == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert check() == expected
stop.set()
for thread in threads:
    thread.join()
print("ok")
"""


@pytest.mark.parametrize("busy", [False, True])
def test_fork_after_use(busy: bool) -> None:
    """The child and the parent go on working, also if other threads of the parent were at work."""
    assert run(FORK, busy) == "ok\n"


@pytest.mark.exhaustive
def test_threads_share_items_buffer_and_report() -> None:
    many = MESSAGES * 2000
    data = b"".join(many)
    ends = [0]
    for message in many:
        ends.append(ends[-1] + len(message))
    offsets = memoryview(bytearray(8 * len(ends))).cast("Q")
    for i, end in enumerate(ends):
        offsets[i] = end
    shared = tvix_build.check_batch(many, threads=1)
    expected = said(shared)
    found: list[object] = []

    def work(number: int) -> None:
        if number % 3 == 0:
            found.append(said(shared))
        elif number % 3 == 1:
            found.append(said(tvix_build.check_batch(data, offsets=offsets, threads=number)))
        else:
            found.append(said(tvix_build.check_batch(many, threads=number)))

    threads = [Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * len(threads)


CHANGES = """
import random, sys, threading
import few_messages, tvix_build
from array import array
from itertools import accumulate

random.seed(6)
lying = sys.argv[1] == "True"
large = tvix_build.build_request(
    command_args=["sh"], outputs=[f"name-{i:05}" for i in range(3000)],
    environment_vars={f"KEY{i:05}": "value" for i in range(300)}, system="x86_64-linux",
).SerializeToString()
messages = (few_messages.messages() + [large]) * 20
data = bytearray(b"".join(messages))
offsets = array("Q", accumulate(map(len, messages), initial=0))
original = bytes(data)
stop = threading.Event()

def change():
    while not stop.is_set():
        for _ in range(1000):
            place = random.randrange(len(data))
            data[place] = random.choice((0, 1, 0x0A, 0x12, 0x7F, 0x80, 0xFF, data[place] ^ 1))
        data[:] = original
        for _ in range(10 * lying):
            place = random.randrange(len(offsets))
            kept, offsets[place] = offsets[place], random.choice((0, len(data), 1 << 40, 2**64 - 1))
            offsets[place] = kept

changer = threading.Thread(target=change)
changer.start()
def check(threads):
    reports = tvix_build.check_batch(data, offsets=offsets, threads=threads)
    assert len(reports) == len(messages)
    for i in reports.invalid[:5]:
        str(reports[i])
    tvix_build.blake3_many(data, offsets=offsets, threads=threads)
    tvix_build.canonicalize_batch(data, offsets=offsets, threads=threads)

for number in range(100):
    try:
        check(1 + number % 3)
    except ValueError as error:  # ValidationError is one.
        assert isinstance(error, tvix_build.ValidationError) or lying, error
stop.set()
changer.join()
data[:] = original
reports = tvix_build.check_batch(data, offsets=offsets)
assert bytes(reports.digests) == bytes(tvix_build.check_batch(messages).digests)
print("ok")
"""


@pytest.fixture
def ranges() -> tuple[array[int], Messages]:
    """A good message and its offsets, which a test may change."""
    data = MESSAGES[0]
    offsets = array("Q", [0, 0, len(data)])
    return offsets, engine.messages(data, offsets)


def test_ranges_that_outgrow_their_room(ranges: tuple[array[int], Messages]) -> None:
    """Another thread may change offsets between two calls of the engine."""
    offsets, messages = ranges
    kind = message_type()
    rows = engine.Table(2).rows(2)
    large_room, small_room = engine.Encodings(), engine.Encodings()  # These own the memory.
    rows = rows._replace(encodings=large_room.add(kind, messages))
    offsets[0] = offsets[1] = 0
    offsets[2], kept = 0, offsets[2]
    small = small_room.add(kind, messages)
    offsets[2] = kept
    assert engine.run(kind, messages, rows)  # The first one is empty, which is a violation.
    with pytest.raises(ValueError, match=r"^messages 7 to 8: another thread changed the offsets"):
        engine.run(kind, messages, rows._replace(encodings=small), 7)


def test_ranges_that_are_good_again(ranges: tuple[array[int], Messages]) -> None:
    """What the engine refused need not be there any more when the reason is looked for."""
    error = engine._error(lib.TVIXB_BAD_RANGE, ranges[1], 7)
    assert isinstance(error, ValueError)
    assert "another thread changed the offsets" in str(error)


@pytest.mark.parametrize("lying", [False, True])
def test_buffer_that_changes_meanwhile(lying: bool) -> None:
    """Verdicts may be wrong, also where offsets change; nothing crashes, and the next is right."""
    assert run(CHANGES, lying) == "ok\n"
