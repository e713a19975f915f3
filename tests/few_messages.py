# SPDX-License-Identifier: MIT
"""A few BuildRequests, one of every verdict."""

from __future__ import annotations

import tvix_build


def messages() -> list[bytes]:
    """Messages of every verdict, some of up to 12 bytes, which an Arrow view holds itself."""
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
