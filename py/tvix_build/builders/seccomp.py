# SPDX-License-Identifier: MIT
"""The seccomp filter of a sandbox: denies system calls that reach what namespaces do not separate.

Key rings, the kernel's log and sockets of virtual machines (AF_VSOCK) belong to the whole host. The
other calls are interfaces of the kernel that no build needs. io_uring could open sockets beside the
filter.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_X32 = 0x40000000  # the first number of the x32 ABI, which has the architecture of x86-64
_IO_URING_SETUP = 425


class _Abi(NamedTuple):
    """Numbers of system calls. `denied` are add_key, request_key, keyctl, bpf, perf_event_open,
    userfaultfd and syslog, and socketcall, whose arguments a filter cannot read."""

    architecture: int
    socket: int
    denied: tuple[int, ...]


_ABIS = {
    "x86_64": (
        _Abi(0xC000003E, 41, (248, 249, 250, 321, 298, 323, 103)),
        _Abi(0x40000003, 359, (286, 287, 288, 357, 336, 374, 103, 102)),  # i386
    ),
    "aarch64": (_Abi(0xC00000B7, 198, (217, 218, 219, 280, 241, 282, 116)),),
}


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def _filter_of(abi: _Abi) -> bytes:
    """Return the instructions for one ABI. They end in a return."""
    deny = _instruction(_RETURN, _ERRNO | errno.EPERM)
    code = _instruction(_LOAD, _NUMBER)
    for number in (*abi.denied, _IO_URING_SETUP):
        code += _instruction(_EQUAL, number, 0, 1) + deny
    code += _instruction(_AT_LEAST, _X32, 0, 1) + deny
    code += _instruction(_EQUAL, abi.socket, 1, 0) + _instruction(_RETURN, _ALLOW)
    code += _instruction(_LOAD, _FIRST_ARGUMENT)
    for family in _FAMILIES:
        code += _instruction(_EQUAL, family, 0, 1) + _instruction(_RETURN, _ALLOW)
    return code + _instruction(_RETURN, _ERRNO | errno.EAFNOSUPPORT)


def seccomp_filter(machine: str) -> bytes | None:
    """Return the filter for a machine, such as x86_64, as bubblewrap reads it; None if it is not
    known. Other ABIs than those of the machine are denied."""
    abis = _ABIS.get(machine)
    if abis is None:
        return None
    code = _instruction(_LOAD, _ARCHITECTURE)
    for abi in abis:
        part = _filter_of(abi)
        code += _instruction(_EQUAL, abi.architecture, 0, len(part) // 8) + part
    return code + _instruction(_RETURN, _ERRNO | errno.ENOSYS)
