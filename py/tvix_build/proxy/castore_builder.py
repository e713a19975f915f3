# SPDX-License-Identifier: MIT
"""The builder at the end of the chain that has a castore: the sandbox, or that of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from snix.build.protos.build_pb2 import BuildResponse, BuildUpdate
from tvix_build.builders import (
    Builder,
    BuilderError,
    BuildFailedError,
    MissingInputsError,
    RefusedError,
    UnavailableError,
)
from tvix_build.builders.interface import OnLog, describe_status
from tvix_build.proxy.builder_protocol import Call, Response, Updates
from tvix_build.proxy.logs import log_castore_failure
from tvix_build.proxy.shared.failures import BUILD_FAILED, INPUTS_MISSING, Failure
from tvix_build.proxy.status import castore_unavailable, status_error

_LOG_SIZE = 1 << 20
"""The limit of the log in a response, in bytes. The castore has the whole log."""


class CastoreBuilder:
    """Runs calls with a builder of `tvix_build.builders`. A cancelled call ends its build.

    Args:
        builder: the builder.
    """

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    async def build(self, call: Call) -> Response:
        """Run a request.

        Raises:
            StatusError: if the builder refuses the request, cannot run, or the build fails.
        """
        with _statuses():
            if call.updates is None:
                return Response(await self._run(call))
            await self._send(call, call.updates)
            return Response(b"")

    async def _run(self, call: Call, on_log: OnLog | None = None) -> bytes:
        result = await self._builder.build_async(
            call.request, schema=call.service.schema, on_log=on_log
        )
        response: bytes = result.response
        return response

    async def _send(self, call: Call, updates: Updates) -> None:
        """Run a request, and send its log and its outputs or why it failed."""
        log = _Log(updates)
        sending = asyncio.create_task(log.send())
        try:
            try:
                found = _outputs(await self._run(call, log.add))
            except BuildFailedError as error:
                found = iter([_update(error)])
            log.end()
            await sending
        finally:
            sending.cancel()
        for update in found:
            await updates.send(update.SerializeToString(deterministic=True))


class _Log:
    """Sends the first bytes of the log of a build while it runs. The build does not wait for the
    caller."""

    def __init__(self, updates: Updates) -> None:
        self._updates = updates
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[bytes] = asyncio.Queue()
        self._left = _LOG_SIZE

    def add(self, data: bytes) -> None:
        """Add a part, in a thread."""
        data = data[: self._left]
        self._left -= len(data)
        if data:
            self._loop.call_soon_threadsafe(self._parts.put_nowait, data)

    def end(self) -> None:
        """End `send` after the last part."""
        self._parts.put_nowait(b"")

    async def send(self) -> None:
        """Send parts until the last one."""
        while part := await self._parts.get():
            chunk = BuildUpdate.StdioChunk(chunk=part)
            await self._updates.send(BuildUpdate(produced_stdout=chunk).SerializeToString())


def _outputs(response: bytes) -> Iterator[BuildUpdate]:
    for i, one in enumerate(BuildResponse.FromString(response).outputs):
        output = BuildUpdate.ProducedOutput(entry=one.output, idx=i, needles=one.needles)
        yield BuildUpdate(produced_output=output)


def _update(error: BuildFailedError) -> BuildUpdate:
    failure = BuildUpdate.BuildFailure()
    status = error.record.exit_status
    if error.missing_output is not None:
        failure.missing_output.output = error.missing_output
    elif status and error.reason == describe_status(status):  # No limit is exceeded.
        failure.nonzero_exit_code.SetInParent()
    else:
        failure.other.message = _failure(error).message
    return BuildUpdate(build_failure=failure)


def _failure(error: BuildFailedError) -> Failure:
    record = error.record
    return Failure(error.reason, record.log_digest, record.exit_status, error.missing_output)


@contextmanager
def _statuses() -> Iterator[None]:
    """Raise errors of builders as the status that a caller gets."""
    try:
        yield
    except MissingInputsError as error:
        code = grpc.StatusCode.FAILED_PRECONDITION
        raise status_error(code, INPUTS_MISSING, str(error)) from None
    except RefusedError as error:
        code = grpc.StatusCode.FAILED_PRECONDITION
        raise status_error(code, "REQUEST_REFUSED", str(error)) from None
    except UnavailableError as error:
        code = grpc.StatusCode.UNAVAILABLE
        raise status_error(code, "BUILDER_UNAVAILABLE", str(error)) from None
    except BuildFailedError as error:
        code, failure = grpc.StatusCode.ABORTED, _failure(error)
        raise status_error(code, BUILD_FAILED, failure.message, failure.metadata) from None
    except BuilderError as error:
        raise status_error(grpc.StatusCode.INTERNAL, "BUILDER_FAILED", str(error)) from None
    except grpc.RpcError as error:
        log_castore_failure(error)
        raise castore_unavailable() from None
