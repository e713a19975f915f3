# SPDX-License-Identifier: MIT
"""`returning_free_memory`: what glibc keeps is returned to the system."""

from __future__ import annotations

import platform
import threading

import pytest

from cli_support import run_python
from tvix_build.proxy.free_memory import returning_free_memory

# Makes a heap of 64 MB in pieces of 64 KiB, frees all but the last one, and waits until the system
# has the memory again.
HEAP = """
import ctypes, pathlib, re
from tvix_build.proxy.free_memory import returning_free_memory
from waiting import wait_until

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    text = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"^VmRSS:\\s+(\\d+) kB", text, re.M)[1]) << 10

before = resident()
size = 1 << 16
pieces = [libc.malloc(size) for _ in range(1024)]
for piece in pieces:
    ctypes.memset(piece, 1, size)
for piece in pieces[:-1]:
    libc.free(piece)
kept = resident() - before
with returning_free_memory(0.01):
    wait_until(lambda: resident() < before + kept // 2)
print(kept)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the allocator of glibc")
def test_freed_memory_is_returned() -> None:
    done = run_python(HEAP)
    assert done.status == 0, done.stderr
    assert int(done.stdout) > 48 << 20  # glibc had not returned it


def test_the_thread_ends_with_the_context() -> None:
    before = threading.active_count()
    with returning_free_memory():
        assert threading.active_count() - before == (platform.libc_ver()[0] == "glibc")
    assert threading.active_count() == before


def test_other_c_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    before = threading.active_count()
    with returning_free_memory():
        assert threading.active_count() == before
