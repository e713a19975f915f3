# SPDX-License-Identifier: MIT
"""The statuses of failed calls of an engine, and of those that return what they must not."""

from __future__ import annotations

from contextlib import suppress

import grpc
from google.protobuf.message import DecodeError

from reapi.protos import google_pb2 as google
from reapi.protos import remote_execution_pb2 as reapi

_MISSING = "MISSING"


class EngineStatusError(Exception):
    """A call or an execution failed.

    Attributes:
        code: the status code.
        message: the message of the engine.
        missing: whether the engine lacks blobs of the action.
    """

    def __init__(self, status: google.Status) -> None:
        self.code: grpc.StatusCode = _code(status.code)
        self.message: str = status.message
        self.missing: bool = any(
            violation.type == _MISSING
            for detail in status.details
            if detail.type_url.endswith("/google.rpc.PreconditionFailure")
            for violation in google.PreconditionFailure.FromString(detail.value).violations
        )
        super().__init__(f"{self.code.name}: {self.message}")


def status_of(error: grpc.RpcError) -> EngineStatusError:
    """Return the status of a failed call."""
    assert isinstance(error, grpc.Call)
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            with suppress(DecodeError):
                return EngineStatusError(google.Status.FromString(value))
    return engine_error(error.code(), error.details() or "")


def not_found(digest: reapi.Digest) -> EngineStatusError:
    """Return the error for a blob that the engine lacks."""
    message = f"the engine lacks the blob {digest.hash}/{digest.size_bytes}"
    return engine_error(grpc.StatusCode.NOT_FOUND, message)


def wrong_contents(digest: reapi.Digest) -> EngineStatusError:
    """Return the error for a blob with other contents."""
    message = f"the engine returned other contents for the blob {digest.hash}/{digest.size_bytes}"
    return engine_error(grpc.StatusCode.DATA_LOSS, message)


def engine_error(code: grpc.StatusCode, message: str) -> EngineStatusError:
    """Return the error with a status."""
    return EngineStatusError(google.Status(code=code.value[0], message=message))


def _code(number: int) -> grpc.StatusCode:
    found = {code.value[0]: code for code in grpc.StatusCode}
    return found.get(number, grpc.StatusCode.UNKNOWN)
