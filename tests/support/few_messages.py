# SPDX-License-Identifier: MIT
"""A few BuildRequests, with all verdicts."""

from __future__ import annotations

import tvix_build
from snix.build.protos import build_pb2 as snix_build


def messages() -> list[bytes]:
    """Return messages with all verdicts, some so short that an Arrow view stores them inline."""
    unsorted = tvix_build.build_request(command_args=["/bin/true"], outputs=["a", "b"])
    unsorted.outputs.reverse()
    twice = tvix_build.build_request(command_args=["/bin/true"], outputs=["a", "b"])
    twice.outputs.append("b")
    return [
        tvix_build.build_request(command_args=["/bin/sh", "-c", "true"]).SerializeToString(),
        tvix_build.build_request(command_args=["t"]).SerializeToString(),
        unsorted.SerializeToString(),
        b"",
        twice.SerializeToString(),
        b"\x0a",
        b"\x0a\x8a\x00" + b"0123456789",  # valid, not canonical
        b"\xff" * 20,
    ]


def later_messages() -> list[bytes]:
    """Return such messages of tvix.build.v1@2024 and snix.build.v1, with the same wire format."""
    good = snix_build.BuildRequest(command_args=["a"], outputs=["a", "b"], working_dir="build")
    unsorted = snix_build.BuildRequest(command_args=["a"], outputs=["b", "a"])
    twice = snix_build.BuildRequest(command_args=["a"], outputs=["a", "a"], working_dir="/")
    some = [one.SerializeToString() for one in (good, unsorted, twice)]
    mended = tvix_build.canonicalize(unsorted)
    return [*some, mended, b"\x12\x81\x00a", b"", b"\x12"]
