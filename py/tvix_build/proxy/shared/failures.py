# SPDX-License-Identifier: MIT
"""Why a server did not build a request: what the status of the call and its details say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

DOMAIN = "tvix-build"
"""The domain of reasons in `google.rpc.ErrorInfo`."""
BUILD_FAILED = "BUILD_FAILED"
INPUTS_MISSING = "INPUTS_MISSING"
_LONGEST_PATH = 4095  # bytes; metadata has no room for longer ones

AnyMessage = TypeVar("AnyMessage", bound=Message)


class Failure(NamedTuple):
    """Why a build failed.

    Attributes:
        reason: the reason in words.
        log_digest: the digest of the log.
        exit_status: the exit status of the command, if it is known.
        missing_output: the output that the build did not make, if that is the reason.
    """

    reason: str
    log_digest: bytes
    exit_status: int | None
    missing_output: str | None

    @property
    def message(self) -> str:
        """The message of the status."""
        return f"{self.reason}{_log(self.log_digest.hex())}"

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the ErrorInfo with the reason BUILD_FAILED."""
        found = {"log_digest": self.log_digest.hex()}
        if self.exit_status is not None:
            found["exit_status"] = str(self.exit_status)
        output = self.missing_output
        if output is not None and len(output.encode()) <= _LONGEST_PATH:
            found["missing_output"] = output
        return found


def read_failure(message: str, metadata: Mapping[str, str]) -> Failure | None:
    """Return the failure with a message, which may be shortened, and with metadata; None if the
    metadata have another form."""
    log, status = metadata.get("log_digest", ""), metadata.get("exit_status")
    if not re.fullmatch("[0-9a-f]{64}", log) or not re.fullmatch("-?[0-9]{1,10}", status or "0"):
        return None
    return Failure(
        reason=message.removesuffix(_log(log)),
        log_digest=bytes.fromhex(log),
        exit_status=None if status is None else int(status),
        missing_output=metadata.get("missing_output"),
    )


def _log(digest: str) -> str:
    return f"; the log is the blob {digest}"


def read_info(error: grpc.RpcError) -> ErrorInfo:
    """Return the reason in the details of a failed call; an empty one if there is none of ours."""
    found = ErrorInfo()
    with suppress(ValueError):
        found = read_detail(error, found)
    return found if found.domain == DOMAIN else ErrorInfo()


def read_detail(error: grpc.RpcError, found: AnyMessage) -> AnyMessage:
    """Add the details of the type of a message to this message, and return it.

    Raises:
        ValueError: if the details of the status are malformed.
    """
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
        for detail in status.details if status else ():
            if detail.Is(found.DESCRIPTOR):
                found.MergeFromString(detail.value)
    except DecodeError as failure:
        raise ValueError(str(failure)) from failure
    return found
