# SPDX-License-Identifier: MIT
"""The seccomp filter, run by an interpreter of its instructions."""

from __future__ import annotations

import errno
import struct

import pytest

from tvix_build.builders.seccomp import seccomp_filter

X86_64, I386, AARCH64, RISCV = 0xC000003E, 0x40000003, 0xC00000B7, 0xC00000F3
ALLOWED = 0x7FFF0000


def run(machine: str, architecture: int, number: int, first: int = 0) -> int:
    """Return the action for a system call."""
    code = seccomp_filter(machine)
    assert code
    instructions = list(struct.iter_unpack("=HBBI", code))
    data = struct.pack("=IIQQ", number, architecture, 0, first)
    accumulator = place = 0
    while True:
        kind, if_true, if_false, operand = instructions[place]
        place += 1
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif kind == 0x06:
            return int(operand)
        else:
            holds = accumulator == operand if kind == 0x15 else accumulator >= operand
            place += if_true if holds else if_false


@pytest.mark.parametrize(
    ("machine", "architecture", "number", "first", "error"),
    [
        ("x86_64", X86_64, 0, 0, None),  # read
        ("x86_64", X86_64, 250, 0, errno.EPERM),  # keyctl
        ("x86_64", X86_64, 425, 0, errno.EPERM),  # io_uring_setup
        ("x86_64", X86_64, 0x40000000, 0, errno.EPERM),  # read of x32
        ("x86_64", X86_64, 41, 1, None),  # socket(AF_UNIX)
        ("x86_64", X86_64, 41, 16, None),  # socket(AF_NETLINK)
        ("x86_64", X86_64, 41, 40, errno.EAFNOSUPPORT),  # socket(AF_VSOCK)
        ("x86_64", I386, 3, 0, None),  # read
        ("x86_64", I386, 102, 0, errno.EPERM),  # socketcall
        ("x86_64", I386, 359, 40, errno.EAFNOSUPPORT),
        ("x86_64", AARCH64, 63, 0, errno.ENOSYS),
        ("aarch64", AARCH64, 63, 0, None),  # read
        ("aarch64", AARCH64, 219, 0, errno.EPERM),  # keyctl
        ("aarch64", AARCH64, 198, 10, None),  # socket(AF_INET6)
        ("aarch64", AARCH64, 198, 38, errno.EAFNOSUPPORT),  # socket(AF_ALG)
        ("aarch64", X86_64, 0, 0, errno.ENOSYS),
        ("aarch64", RISCV, 0, 0, errno.ENOSYS),
    ],
)
def test_the_filter(
    machine: str, architecture: int, number: int, first: int, error: int | None
) -> None:
    expected = ALLOWED if error is None else 0x50000 | error
    assert run(machine, architecture, number, first) == expected


def test_an_unknown_machine_has_no_filter() -> None:
    assert seccomp_filter("riscv64") is None
