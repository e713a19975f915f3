# SPDX-License-Identifier: MIT
"""Prints the statuses of failed calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvix_build._core.report import sentence
from tvix_build.cli.terminal import Monitor

if TYPE_CHECKING:
    import grpc


def print_status(monitor: Monitor, place: str, error: grpc.RpcError) -> None:
    """Print the status of a call, and the violations in its details."""
    import grpc

    from tvix_build.proxy.client import bad_request

    assert isinstance(error, grpc.Call)
    monitor.error(f"{place}: {error.code().name}: {error.details()}")
    try:
        violations = bad_request(error).field_violations
    except ValueError as failure:
        monitor.error(f"{place}: malformed details of the status: {failure}")
        return
    for one in violations:
        monitor.error(f"{place}: {sentence(one.field, one.reason, one.description)}")
