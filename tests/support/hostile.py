# SPDX-License-Identifier: MIT
"""Messages made to be slow or large: worst cases of n parts for what might be quadratic.

As a program it prints what each takes for n, 2n and 4n parts: CPU time a part, and the memory
that is needed besides the message (ARCHITECTURE.md says how much it may be). Then the same once for
messages of full size: 10,000,000 parts, and 1 GiB of such parts as are a few bytes and no element
of a sorted list.

usage: bazel run //tests:hostile [N]     (N: 1,000,000 if not given; 15 GB of memory are needed)
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
    """Up in even numbers, down in odd ones."""
    return [*range(0, n, 2), *range(n - 1 - n % 2, 0, -2)]


def shared(numbers: Iterable[int]) -> bytes:
    """Names of 255 bytes whose first 247 are the same."""
    return outputs("x" * 247 + f"{number:08}" for number in numbers)


def nodes(n: int, name: Callable[[int], str]) -> bytes:
    """Symlinks as inputs."""
    links = (wire.blob(1, name(i)) + wire.blob(2, "/") for i in range(n))
    return COMMAND + b"".join(wire.blob(4, wire.blob(3, link)) for link in links)


def needles(numbers: Iterable[int]) -> bytes:
    """An answer with one output, a symlink, that has these needles."""
    symlink = wire.blob(1, wire.blob(3, wire.blob(2, "/")))
    return wire.blob(1, symlink + wire.blob(2, b"".join(map(wire.varint, numbers))))


#: Messages whose lists are only in no order; as many sorted ones are beside them.
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

#: Messages with violations in proportion to n, or as many parts with none.
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
    "length past the end": lambda n: b"\x12\x00" * n + b"\x12\xff\xff\xff\xff\x07",
}

MAKERS = {name: pair[0] for name, pair in UNSORTED.items()} | OTHERS


def type_of(name: str) -> tuple[str, str]:
    """Kind and schema of a message."""
    if name.startswith("needles"):
        return "build", "snix.build.v1"
    return "build-request", "tvix.build.v1"


MEASURE = """
import sys, time
import hostile, tvix_build

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))

data = hostile.MAKERS[sys.argv[1]](int(sys.argv[2]))
tvix_build.check(b"")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # The peak is now what is in use.
before = peak()
begin = time.process_time()
report = tvix_build.check(data, **dict(zip(("kind", "schema"), hostile.type_of(sys.argv[1]))))
seconds = time.process_time() - begin
print(len(data), peak() - before, seconds, report.violation_count, report.valid,
      report.digest.hex() if report.digest else "-",
      report.violations[0].code.value if report.violations else "-")
"""


def measure(name: str, n: int, environment: dict[str, str] | None = None) -> list[str]:
    """Bytes of message, of memory besides it, seconds of CPU; violations, valid, digest, code of
    the first violation.
    """
    command = [sys.executable, "-c", MEASURE, name, str(n)]
    environment = environment or {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()


GIB = 1 << 30
#: How many parts there are in 1 GiB of them; of the other messages 10,000,000 are the full size.
PARTS_OF_GIB = {
    "arguments of one byte": GIB // 3,
    "unknown fields": GIB // 2,
    "groups, deep": GIB // 2,
    "groups without end": GIB,
    # 2 GiB: more than a length can say.
    "halves to merge": 2 * GIB,
}


def print_growth(n: int) -> None:
    """A line for each message, with n, 2n and 4n parts."""
    print(f"{'':32} {'ns a part, n':>12} {'2n':>6} {'4n':>6}  {'bytes a part':>12} {'besides':>8}")
    for name in MAKERS:
        rows = [measure(name, n * factor) for factor in (1, 2, 4)]
        one, two, four = (float(row[2]) * 1e9 / n for row in rows)
        size, memory = (int(number) / (4 * n) for number in rows[-1][:2])
        times = f"{one:12.0f} {two / 2:6.0f} {four / 4:6.0f}"
        print(f"{name:32} {times}  {size:12.1f} {memory:8.1f}", flush=True)


def print_full_size() -> None:
    """A line for each message at its full size."""
    print(f"\n{'':32} {'MB':>6} {'seconds':>8} {'besides, MB':>12} {'violations':>12}  first")
    for name in MAKERS:
        parts = PARTS_OF_GIB.get(name, 10_000_000)
        size, memory, seconds, violations, _, _, first = measure(name, parts)
        times = f"{int(size) / 1e6:6.0f} {float(seconds):8.2f} {int(memory) / 1e6:12.0f}"
        print(f"{name:32} {times} {int(violations):12,}  {first}", flush=True)


def main() -> None:
    print_growth(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    print_full_size()


if __name__ == "__main__":
    main()
