# SPDX-License-Identifier: MIT
"""The interface of all builders, what they return, and what they raise."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message

from tvix.castore.protos.castore_pb2 import Node
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import Error, SchemaLike

OnLog: TypeAlias = Callable[[bytes], object]
"""Gets the output of the command, stdout and stderr in one stream, while the build runs."""
Response = TypeVar("Response", covariant=True)
_SIGNALS = {128 + one: one.name for one in signal.Signals}


@dataclass(frozen=True)
class BuildRecord:
    """How a build ran.

    Attributes:
        builder: the address of the builder, such as `sandbox:`.
        request_digest: the digest of the request, 32 bytes.
        started: the start of the build, in UTC.
        finished: its end, in UTC.
        exit_status: the exit status of the command, 128 plus the number of the signal that ended
            it, or None if the builder ended it.
        cpu_seconds: CPU time of the command and of its descendants.
        peak_memory: the largest memory of all processes that was measured, in bytes.
        log_digest: the digest of the log, which is a blob in the castore, 32 bytes.
        log_size: the size of the log in bytes.
        failure: why the build failed; None if it did not.
    """

    builder: str
    request_digest: bytes
    started: datetime
    finished: datetime
    exit_status: int | None
    cpu_seconds: float
    peak_memory: int
    log_digest: bytes
    log_size: int
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object: digests are hexadecimal, times in ISO 8601."""
        values = dict(vars(self))
        for name in ("request_digest", "log_digest"):
            values[name] = values[name].hex()
        for name in ("started", "finished"):
            values[name] = values[name].isoformat()
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BuildRecord:
        """Return the record of a JSON object that `to_json` returned.

        Raises:
            KeyError, TypeError, ValueError: if it is not such an object.
        """
        return cls(
            **{
                **values,
                "request_digest": bytes.fromhex(values["request_digest"]),
                "log_digest": bytes.fromhex(values["log_digest"]),
                "started": datetime.fromisoformat(values["started"]),
                "finished": datetime.fromisoformat(values["finished"]),
            }
        )


@dataclass(frozen=True)
class BuildResult(Generic[Response]):
    """A successful build.

    Attributes:
        response: a Build of tvix.build.v1 or a BuildResponse of snix.build.v1: a message if the
            request was a message, and canonical bytes if it was bytes.
        outputs: the castore nodes of the outputs, by their paths relative to the root.
        record: how the build ran.
    """

    response: Response
    outputs: Mapping[str, Node]
    record: BuildRecord


class Builder(Protocol):
    """Runs build requests. It is safe to use from several threads."""

    def build(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """Run a request and return the response, which is checked against the request.

        Args:
            request: a BuildRequest, as a message or as bytes.
            schema: the schema of a request that is bytes; by default tvix.build.v1.
            on_log: called with the output of the command while it runs.

        Raises:
            ValidationError: if the request is invalid. It does not run.
            RefusedError: if this builder cannot run the request. It does not run.
            UnavailableError: if the builder cannot run any request.
            BuildFailedError: if the build fails.
        """

    async def build_async(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `build`. Cancelling the call ends the build; `on_log` is called in a thread."""


def describe_status(status: int) -> str:
    """Return the reason of a build whose command had an exit status other than 0."""
    name = _SIGNALS.get(status)
    return f"exit status {status} ({name})" if name else f"exit status {status}"


def missing_output(output: str) -> str:
    """Return the reason of a build that did not make an output."""
    return f"output {output} is missing"


class BuilderError(Error):
    """A request was not built."""


class UnavailableError(BuilderError):
    """The builder cannot run on this host. The message names the remedy.

    Attributes:
        permanent: whether a retry cannot succeed until somebody applies the remedy.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class RefusedError(BuilderError):
    """The builder cannot run this request, and did not start it.

    Attributes:
        reasons: all reasons, each with the path of the field.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(tuple(reasons))
        self.reasons: tuple[str, ...] = tuple(reasons)

    def __str__(self) -> str:
        return "; ".join(self.reasons)


class MissingInputsError(RefusedError):
    """The castore of the builder lacks inputs of the request."""


class BuildFailedError(BuilderError):
    """The build ran and failed.

    Attributes:
        reason: why it failed, such as `exit status 1` or `output nix/store/… is missing`.
        record: how it ran.
        kept: the directory of the build, if the builder keeps those of failed builds.
        missing_output: the output that the build did not make, if it failed for this reason.
    """

    def __init__(
        self,
        reason: str,
        record: BuildRecord,
        kept: Path | None = None,
        *,
        missing_output: str | None = None,
    ) -> None:
        super().__init__(reason, record, kept)
        self.reason = reason
        self.record = record
        self.kept = kept
        self.missing_output = missing_output

    def __str__(self) -> str:
        return self.reason
