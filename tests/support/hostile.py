# SPDX-License-Identifier: MIT
"""Messages that may be slow or need much memory: worst cases with n parts for code that might be
quadratic.

As a program, this prints for each message, with n, 2n and 4n parts, the CPU time for a part and the
memory needed besides the message (ARCHITECTURE.md states the limit). Then it prints the same for
messages of full size: 10,000,000 parts, or 1 GiB for messages whose parts are a few bytes and not
elements of a sorted list.

usage: bazel run //tests:hostile [N]     (default of N: 1,000,000; needs 15 GB of memory)
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable

import wire

COMMAND = wire.blob(1, "sh")


def outputs(names: Iterable[str]) -> bytes:
    return COMMAND + b"".join(wire.blob(2, name) for name in names)


def organ_pipe(n: int) -> list[int]:
    """Return ascending even numbers, then descending odd numbers."""
    return [*range(0, n, 2), *range(n - 1 - n % 2, 0, -2)]


def shared(numbers: Iterable[int]) -> bytes:
    """Return outputs with names of 255 bytes, of which the first 247 are equal."""
    return outputs("x" * 247 + f"{number:08}" for number in numbers)


def nodes(n: int, name: Callable[[int], str]) -> bytes:
    """Return a request with n symlinks as inputs."""
    links = (wire.blob(1, name(i)) + wire.blob(2, "/") for i in range(n))
    return COMMAND + b"".join(wire.blob(4, wire.blob(3, link)) for link in links)


def needles(numbers: Iterable[int]) -> bytes:
    """Return a response with one output, a symlink, with these needles."""
    symlink = wire.blob(1, wire.blob(3, wire.blob(2, "/")))
    return wire.blob(1, symlink + wire.blob(2, b"".join(map(wire.varint, numbers))))


#: Messages that are valid except for the order of a list, each with the sorted message.
UNSORTED: dict[str, tuple[Callable[[int], bytes], Callable[[int], bytes]]] = {
    "reversed": (
        lambda n: outputs(f"{i:08}" for i in reversed(range(n))),
        lambda n: outputs(f"{i:08}" for i in range(n)),
    ),
    "organ pipe": (
        lambda n: outputs(f"{i:08}" for i in organ_pipe(n)),
        lambda n: outputs(f"{i:08}" for i in range(n)),
    ),
    "shared 247 bytes, reversed": (
        lambda n: shared(reversed(range(n // 8))),
        lambda n: shared(range(n // 8)),
    ),
    "shared 247 bytes, organ pipe": (
        lambda n: shared(organ_pipe(n // 8)),
        lambda n: shared(range(n // 8)),
    ),
    "blocks of 16, swapped": (
        lambda n: outputs(f"{i ^ 16:08}" for i in range(n // 32 * 32)),
        lambda n: outputs(f"{i:08}" for i in range(n // 32 * 32)),
    ),
}

#: Messages with n violations, or with n parts and no violations.
OTHERS: dict[str, Callable[[int], bytes]] = {
    "arguments of one byte": lambda n: wire.blob(1, "a") * n,
    "empty inputs": lambda n: COMMAND + b"\x22\x00" * n,
    "empty names": lambda n: b"\x12\x00" * n,
    "equal names": lambda n: outputs(["x"] * n),
    "equal names of 255 bytes": lambda n: outputs(["x" * 255] * (n // 8)),
    "equal names, then a smaller one": lambda n: outputs([*["x"] * n, "a"]),
    "names twice, reversed": lambda n: outputs(f"{i // 2:08}" for i in reversed(range(n))),
    "needles twice, reversed": lambda n: needles(i // 2 for i in reversed(range(n))),
    "every field wrong": lambda n: b"\x0a\x01\x00" * n + b"\x12\x01/" * n + b"\x1a\x00" * n,
    "inputs that are outputs": lambda n: (
        outputs(f"{i:08}" for i in range(n)) + nodes(n, lambda i: f"{i:08}")[len(COMMAND) :]
    ),
    "unknown fields": lambda n: COMMAND + wire.number(9, 1) * n,
    "groups, deep": lambda n: COMMAND + wire.nested_groups(9, 99) * (n // 99),
    "late fields": lambda n: wire.blob(2, "x") + COMMAND * n,
    "parts to merge": lambda n: COMMAND + wire.blob(5, wire.blob(3, "/a")) * n,
    "halves to merge": lambda n: COMMAND + wire.blob(5, wire.blob(3, "/" + n // 2 * "a")) * 2,
    "members of a oneof": lambda n: COMMAND + wire.blob(4, b"\x0a\x00\x12\x00" * n),
    "groups without end": lambda n: COMMAND + wire.tag(9, wire.GROUP) * n,
    "empty steps": lambda n: b"\x0a\x00" * n,
    "length past the end": lambda n: b"\x12\x00" * n + b"\x12\xff\xff\xff\xff\x07",
}

MAKERS = {name: pair[0] for name, pair in UNSORTED.items()} | OTHERS


def type_of(name: str) -> tuple[str, str]:
    """Return the kind and schema of a message."""
    if name == "empty steps":
        return "plan", "tvix.build.v1"
    if name.startswith("needles"):
        return "build", "snix.build.v1"
    return "build-request", "tvix.build.v1"


MEASURE = """
import ctypes, sys, time
import hostile, tvix_build

def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))

data = hostile.MAKERS[sys.argv[1]](int(sys.argv[2]))
tvix_build.check(b"")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # reset the peak
resident, peak = memory("VmRSS:"), memory("VmHWM:")
begin = time.process_time()
report = tvix_build.check(data, **dict(zip(("kind", "schema"), hostile.type_of(sys.argv[1]))))
seconds = time.process_time() - begin
peak = memory("VmHWM:") - peak
ctypes.CDLL(None).malloc_trim(0)  # glibc may keep freed memory
resident = memory("VmRSS:") - resident
print(len(data), peak, resident, seconds, report.violation_count, report.valid,
      report.digest.hex() if report.digest else "-",
      report.violations[0].code.value if report.violations else "-")
"""


def measure(name: str, n: int, environment: dict[str, str] | None = None) -> list[str]:
    """Return the message's size, the additional memory during and after the call in bytes, the CPU
    time in seconds, the number of violations, `valid`, the digest, and the code of the first
    violation.
    """
    command = [sys.executable, "-c", MEASURE, name, str(n)]
    environment = environment or {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()


GIB = 1 << 30
#: The number of parts of a message of 1 GiB. Other messages have 10,000,000 parts at full size.
PARTS_OF_GIB = {
    "arguments of one byte": GIB // 3,
    "unknown fields": GIB // 2,
    "groups, deep": GIB // 2,
    "groups without end": GIB,
    # 2 GiB, which exceeds the maximum length of a field.
    "halves to merge": 2 * GIB,
}


def print_growth(n: int) -> None:
    """Print a line for each message, with n, 2n and 4n parts."""
    print(f"{'':32} {'ns a part, n':>12} {'2n':>6} {'4n':>6}  {'bytes a part':>12} {'besides':>8}")
    for name in MAKERS:
        rows = [measure(name, n * factor) for factor in (1, 2, 4)]
        one, two, four = (float(row[3]) * 1e9 / n for row in rows)
        size, memory = (int(number) / (4 * n) for number in rows[-1][:2])
        times = f"{one:12.0f} {two / 2:6.0f} {four / 4:6.0f}"
        print(f"{name:32} {times}  {size:12.1f} {memory:8.1f}", flush=True)


def print_full_size() -> None:
    """Print a line for each message at its full size."""
    print(f"\n{'':32} {'MB':>6} {'seconds':>8} {'besides, MB':>12} {'violations':>12}  first")
    for name in MAKERS:
        parts = PARTS_OF_GIB.get(name, 10_000_000)
        size, memory, _, seconds, violations, _, _, first = measure(name, parts)
        times = f"{int(size) / 1e6:6.0f} {float(seconds):8.2f} {int(memory) / 1e6:12.0f}"
        print(f"{name:32} {times} {int(violations):12,}  {first}", flush=True)


def main() -> None:
    print_growth(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    print_full_size()


if __name__ == "__main__":
    main()
