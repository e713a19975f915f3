# SPDX-License-Identifier: MIT
"""Runs requests on an engine of the Remote Execution API."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, Message

from reapi.protos import remote_execution_pb2 as reapi
from tvix.castore.protos import castore_pb2
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import SchemaLike
from tvix_build.builders.interface import (
    BuilderError,
    BuildResult,
    OnLog,
    UnavailableError,
)
from tvix_build.builders.limits import Limits
from tvix_build.builders.messages import Request, read_request
from tvix_build.builders.reapi.address import parse
from tvix_build.builders.reapi.digests import DigestFunction, DigestTable
from tvix_build.builders.reapi.lowering import Lowered, Property, lower
from tvix_build.builders.reapi.raising import ResultError
from tvix_build.builders.threads import run_in_thread
from tvix_build.castore import CastoreStore

if TYPE_CHECKING:
    import grpc

    from tvix_build.builders.reapi.build import Engine
    from tvix_build.builders.reapi.client import Cancellation
    from tvix_build.builders.reapi.statuses import EngineStatusError

_REMEDIES = {
    "UNAVAILABLE": "check the address, and that the engine runs",
    "UNAUTHENTICATED": "check the credentials and the name of the instance in the address",
    "PERMISSION_DENIED": "check the credentials and the name of the instance in the address",
    "NOT_FOUND": "check the name of the instance in the address",
    "INVALID_ARGUMENT": "check the name of the instance in the address",
    "UNIMPLEMENTED": "check that the address is that of a Remote Execution engine",
}


class EngineError(BuilderError):
    """The engine failed, or returned what it must not. The message has its address."""


class ReapiBuilder:
    """Runs requests on an engine of the Remote Execution API. It needs grpcio:
    `pip install 'tvix-build[grpc]'`.

    Inputs come from a castore, and outputs and logs are added to it. Only blobs that the engine
    lacks are uploaded. Calls of several threads run concurrently. Close it, or use it as a context
    manager.

    Args:
        address: `reapi+grpc://HOST:PORT/INSTANCE`, or `reapi+grpcs://…` with TLS. The name of the
            instance may be empty.
        castore: the store. The digests of its contents are kept in a file in its directory.
        credentials: the TLS credentials, made by `grpc.ssl_channel_credentials`, for
            `reapi+grpcs` only. The default trusts the certificate authorities that gRPC trusts.
        properties: platform properties for constraints and for all actions.
        cache: whether a result that the engine has in its cache is returned.
        timeout: the time limit of a command in seconds; by default that of the engine.
        max_log_size: the limit of a log in bytes. A build with a larger one fails.
        on_stage: called with the name of each stage of an execution, such as `QUEUED`.
        delays: the seconds before each repetition of a call that fails with UNAVAILABLE.

    Raises:
        ValueError: if the address has another form, or `credentials` are given without TLS.
    """

    def __init__(
        self,
        address: str,
        castore: CastoreStore,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        properties: Sequence[Property] = (),
        cache: bool = True,
        timeout: int | None = None,
        max_log_size: int = Limits.log_size,
        on_stage: Callable[[str], object] = lambda _: None,
        delays: Sequence[float] | None = None,
    ) -> None:
        from tvix_build.builders.reapi.client import DELAYS, Client

        self._address = parse(address)
        if credentials is not None and not self._address.tls:
            raise ValueError(
                f"expected a reapi+grpcs:// address with credentials, found {address!r}"
            )
        self._client = Client(self._address, credentials, DELAYS if delays is None else delays)
        self._castore = castore
        self._properties = tuple(properties)
        self._cache = cache
        self._timeout = timeout
        self._max_log_size = max_log_size
        self._on_stage = on_stage
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._shell: castore_pb2.FileNode | None = None

    def build(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `Builder.build`. `on_log` is called when the build has ended.

        Raises:
            EngineError: if the engine fails.
        """
        from tvix_build.builders.reapi.client import Cancellation

        return self._build(read_request(request, schema), on_log, Cancellation())

    async def build_async(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `Builder.build_async`. Cancelling the call cancels the operation of the engine, if the
        engine can cancel operations."""
        from tvix_build.builders.reapi.client import Cancellation

        cancellation = Cancellation()
        checked = read_request(request, schema)
        return await run_in_thread(
            lambda: self._build(checked, on_log, cancellation), cancellation.cancel
        )

    def close(self) -> None:
        """Close the connection, which cancels running builds."""
        self._client.close()
        if self._engine is not None:
            self._engine.table.close()

    def __enter__(self) -> ReapiBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(
        self, request: Request, on_log: OnLog | None, cancellation: Cancellation
    ) -> BuildResult[Any]:
        from tvix_build.builders.reapi.build import Build
        from tvix_build.builders.reapi.statuses import EngineStatusError

        try:
            engine = self._find_engine(cancellation)
            session = self._client.session(engine.table.function, cancellation)
            session.limit_batches(engine.batch_size)
            lowered = self._lower(request, engine)
            return Build(self._castore, request, lowered, engine, session).run(on_log)
        except EngineStatusError as error:
            raise self._error(error) from error
        except (ResultError, DecodeError) as error:
            raise EngineError(f"{self._address.text}: {error}") from error

    def _error(self, error: EngineStatusError) -> BuilderError:
        remedy = _REMEDIES.get(error.code.name)
        text = f"{self._address.text}: {error}" + (f"; {remedy}" if remedy else "")
        return UnavailableError(text) if error.code.name == "UNAVAILABLE" else EngineError(text)

    def _find_engine(self, cancellation: Cancellation) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._make_engine(self._client.capabilities(cancellation))
            return self._engine

    def _make_engine(self, found: reapi.ServerCapabilities) -> Engine:
        from tvix_build.builders.reapi.build import Engine

        cache, execution = found.cache_capabilities, found.execution_capabilities
        if not execution.exec_enabled:
            raise UnavailableError(
                f"{self._address.text}: the engine stores blobs, but executes nothing; use the "
                "address of its execution service",
                permanent=True,
            )
        executed = {*execution.digest_functions, execution.digest_function}
        known = [one for one in DigestFunction if one.value in cache.digest_functions]
        functions = [one for one in known if one.value in executed]
        if not functions:
            names = [reapi.DigestFunction.Value.Name(one) for one in cache.digest_functions]
            raise UnavailableError(
                f"{self._address.text}: expected an engine with the digest function SHA256 or "
                f"BLAKE3, found {', '.join(names) or 'none'}",
                permanent=True,
            )
        function = max(functions, key=lambda one: one is DigestFunction.BLAKE3)
        path = digest_table_path(self._castore, function)
        strategy = reapi.SymlinkAbsolutePathStrategy.DISALLOWED
        return Engine(
            address=self._address.text,
            table=DigestTable(function, path),
            batch_size=cache.max_batch_total_size_bytes,
            absolute_symlinks=cache.symlink_absolute_path_strategy != strategy,
            cache=self._cache,
            max_log_size=self._max_log_size,
            on_stage=self._on_stage,
        )

    def _find_shell(self) -> castore_pb2.FileNode:
        """Return the shell, which is the same one for all builds of this object."""
        with self._lock:
            if self._shell is None or not self._castore.has_blob(self._shell.digest):
                self._shell = add_shell(self._castore)
            return self._shell

    def _lower(self, request: Request, engine: Engine) -> Lowered:
        from tvix_build.builders.reapi.build import missing_inputs

        message = request.message
        shell = self._find_shell() if message.constraints.provide_bin_sh else None
        with missing_inputs():
            return lower(
                message,
                self._castore,
                engine.table,
                shell=shell,
                properties=self._properties,
                timeout=self._timeout,
            )


def digest_table_path(castore: CastoreStore, function: DigestFunction) -> str:
    """Return the path of the table of digests in the directory of a castore."""
    return os.path.join(castore.path, f"remote-execution-{function.name.lower()}.sqlite")


def add_shell(castore: CastoreStore) -> castore_pb2.FileNode:
    """Add the static shell of this host to a castore, and return its node.

    Raises:
        UnavailableError: if busybox is missing.
    """
    path = shutil.which("busybox")
    if path is None:
        raise UnavailableError(
            "expected busybox in the PATH as /bin/sh of the build, found none: "
            "apt-get install busybox-static",
            permanent=True,
        )
    with open(path, "rb") as file:
        digest = castore.add_blob(file)
    return castore_pb2.FileNode(digest=digest, size=castore.blob_size(digest), executable=True)
