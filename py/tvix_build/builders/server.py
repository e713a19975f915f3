# SPDX-License-Identifier: MIT
"""The builder that sends requests to a server, such as `tvix-build serve --castore` or a builder of
snix. It needs grpcio: `pip install 'tvix-build[grpc]'`.

    from tvix_build.builders.server import ServerBuilder
    from tvix_build.castore import CastoreStore

    with CastoreStore("castore") as castore:
        result = ServerBuilder("grpc+http://host:8000", castore).build(request)
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from tvix_build._core.nodes import member_of
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import SchemaLike
from tvix_build.builders.interface import (
    BuilderError,
    BuildFailedError,
    BuildRecord,
    BuildResult,
    MissingInputsError,
    OnLog,
    RefusedError,
    UnavailableError,
)
from tvix_build.builders.limits import Limits
from tvix_build.builders.log import Log
from tvix_build.builders.messages import Request, read_outputs, read_request
from tvix_build.castore import CastoreStore
from tvix_build.castore.client import AsyncCastoreClient, UnexpectedContentError
from tvix_build.castore.layout import MissingError
from tvix_build.proxy.client import AsyncBuildService, InvalidResponseError
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.failures import (
    BUILD_FAILED,
    INPUTS_MISSING,
    Failure,
    read_failure,
    read_info,
)

if TYPE_CHECKING:
    from snix.castore.protos.castore_pb2 import Entry

__all__ = ["ServerBuilder"]


class ServerBuilder:
    """Sends requests to a server. It is safe to use from several threads.

    Inputs that the castore store has are uploaded to the castore services of the server before the
    build, unless the server has them; it must have the other inputs. What was uploaded is
    remembered; if the server lacks it later, it is uploaded again, and the call is repeated once.
    Outputs are downloaded to the store. A server has no record of its builds: theirs has the times
    of this client, and only that of a failed build has a log.

    Args:
        address: the address of the server: `grpc+http://HOST:PORT`, `grpc+https://HOST:PORT` or
            `grpc+unix:/PATH`.
        castore: the castore store.
        credentials: the TLS credentials, for `grpc+https` only. The default trusts the certificate
            authorities that gRPC trusts.
        timeout: the limit of each build in seconds, without transfers; None for no limit.
        max_log_size: the limit of a log in bytes.

    Raises:
        ValueError: if the address has none of these forms.
    """

    def __init__(
        self,
        address: str,
        castore: CastoreStore,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float | None = None,
        max_log_size: int = Limits.log_size,
    ) -> None:
        self._address = parse(address).text
        self._castore = castore
        self._credentials = credentials
        self._timeout = timeout
        self._max_log_size = max_log_size
        self._uploaded: set[bytes] = set()

    def build(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `Builder.build`. `on_log` is called when the build has failed."""
        return asyncio.run(self.build_async(request, schema=schema, on_log=on_log))

    async def build_async(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `Builder.build_async`. Cancelling the call cancels the call of the server."""
        found = read_request(request, schema)
        build = _Build(found, self._address, self._castore, self._max_log_size)
        options: Any = {"schema": build.request.schema, "credentials": self._credentials}
        # Connections belong to an event loop. gRPC shares them among clients of one address.
        async with (
            AsyncBuildService(self._address, **options) as service,
            AsyncCastoreClient(self._address, **options) as client,
        ):
            try:
                response = await self._call(build, service, client)
                return await build.result(client, response)
            except grpc.aio.AioRpcError as error:
                self._uploaded = set()  # The server may have lost them.
                raise await build.error(client, error, on_log) from error
            except (InvalidResponseError, MissingError, UnexpectedContentError) as error:
                raise BuilderError(f"{self._address}: {error}") from error

    async def _call(
        self, build: _Build, service: AsyncBuildService, client: AsyncCastoreClient
    ) -> bytes:
        """Return the response. If the server lacks inputs, since it collected garbage, upload all
        of them again, and repeat the call once."""
        await build.upload(client, self._uploaded)
        try:
            return await service.do_build(build.request.encoding, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            if read_info(error).reason != INPUTS_MISSING:
                raise
        # A new set: other builds may still add to the old one what they uploaded before the loss.
        self._uploaded = set()
        await build.upload(client, self._uploaded)
        return await service.do_build(build.request.encoding, timeout=self._timeout)


@dataclass
class _Build:
    """One build on a server."""

    request: Request
    address: str
    castore: CastoreStore
    max_log_size: int
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    async def upload(self, client: AsyncCastoreClient, uploaded: set[bytes]) -> None:
        """Upload the inputs that were not uploaded."""
        for node in self.request.message.inputs:
            key = _content(node)
            if key in uploaded or node.HasField("symlink"):
                continue
            with suppress(MissingError):  # The server may have it.
                await client.upload(self.castore, node)
                uploaded.add(key)

    async def result(self, client: AsyncCastoreClient, response: bytes) -> BuildResult[Any]:
        """Return the result with a response, after downloading the outputs."""
        outputs = read_outputs(self.request, response)
        for node in outputs.values():
            await client.download(node, self.castore)
        with self._log() as log:
            record = await self._record(log, exit_status=0)
        return BuildResult(self.request.respond(response), outputs, record)

    async def error(
        self, client: AsyncCastoreClient, error: grpc.aio.AioRpcError, on_log: OnLog | None
    ) -> BuilderError:
        """Return the error for the status of a call."""
        text = error.details() or error.code().name
        info = read_info(error)
        if info.reason == BUILD_FAILED:
            failure = read_failure(text, info.metadata)
            if failure is not None:
                return await self._failure(client, failure, on_log)
        if info.reason == INPUTS_MISSING:
            return MissingInputsError([text])
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            return RefusedError([text])
        text = f"{self.address}: {error.code().name}: {text}"
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            text += "; use a server that has a builder and castore services"
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
            return UnavailableError(text)
        return BuilderError(text)

    async def _failure(
        self, client: AsyncCastoreClient, failure: Failure, on_log: OnLog | None
    ) -> BuildFailedError:
        """Return the error for a build that failed, after downloading its log, if possible."""
        with self._log() as log:
            with suppress(grpc.RpcError, MissingError):
                await self._fetch_log(client, failure.log_digest, log, on_log)
            reason = log.failure or failure.reason
            record = await self._record(log, exit_status=failure.exit_status, failure=reason)
        missing = None if log.failure else failure.missing_output
        return BuildFailedError(reason, record, missing_output=missing)

    @staticmethod
    async def _fetch_log(
        client: AsyncCastoreClient, digest: bytes, log: Log, on_log: OnLog | None
    ) -> None:
        """Add a blob to a log, up to its limit."""

        def add(piece: bytes) -> None:
            kept = log.write(piece)
            if kept and on_log is not None:
                on_log(kept)

        async with aclosing(client.read_blob(digest)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(add, piece)
                if log.exceeded:
                    return

    def _log(self) -> Log:
        return Log(self.max_log_size, self.castore.path)

    async def _record(
        self, log: Log, *, exit_status: int | None = None, failure: str | None = None
    ) -> BuildRecord:
        return BuildRecord(
            builder=self.address,
            request_digest=self.request.digest,
            started=self.started,
            finished=datetime.now(timezone.utc),
            exit_status=exit_status,
            cpu_seconds=0.0,
            peak_memory=0,
            log_digest=await asyncio.to_thread(log.store, self.castore),
            log_size=log.size,
            failure=failure,
        )


def _content(node: Entry) -> bytes:
    """Return what identifies the content of a node: its kind and its digest."""
    kind, member = member_of(node)
    digest: bytes = member.digest
    return kind.encode() + digest
