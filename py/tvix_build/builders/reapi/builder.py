# SPDX-License-Identifier: MIT
"""Runs requests on an engine of the Remote Execution API."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, Message

from reapi.protos import remote_execution_pb2 as reapi
from reapi.protos.google_pb2 import Timestamp
from tvix.castore.protos import castore_pb2
from tvix_build._core.blake3 import blake3_many
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import SchemaLike
from tvix_build.builders.directories import BUILDS, build_directory
from tvix_build.builders.interface import (
    BuilderError,
    BuildFailedError,
    BuildRecord,
    BuildResult,
    OnLog,
    RefusedError,
    UnavailableError,
    missing_output,
)
from tvix_build.builders.messages import Request, read_request, write_response
from tvix_build.builders.reapi.address import parse
from tvix_build.builders.reapi.digests import DigestFunction, DigestTable
from tvix_build.builders.reapi.lowering import Lowered, Property, blobs, lower, output_path
from tvix_build.builders.reapi.raising import Raised, ResultError, raise_result, result_files
from tvix_build.builders.references import scan_node
from tvix_build.builders.threads import run_in_thread
from tvix_build.castore import CastoreStore, MissingError, directory_size

if TYPE_CHECKING:
    import grpc

    from tvix_build.builders.reapi.client import Cancellation, EngineStatusError, Opener, Session

_ATTEMPTS = 3  # executions of an action whose blobs the engine loses
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
        self._on_stage = on_stage
        self._lock = threading.Lock()
        self._engine: _Engine | None = None
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
        from tvix_build.builders.reapi.client import EngineStatusError

        try:
            engine = self._find_engine(cancellation)
            session = self._client.session(engine.table.function, cancellation)
            session.limit_batches(engine.batch_size)
            build = _Build(self, request, engine, session, self._lower(request, engine))
            return build.run(on_log)
        except EngineStatusError as error:
            raise self._error(error) from error
        except (ResultError, DecodeError) as error:
            raise EngineError(f"{self._address.text}: {error}") from error

    def _error(self, error: EngineStatusError) -> BuilderError:
        remedy = _REMEDIES.get(error.code.name)
        text = f"{self._address.text}: {error}" + (f"; {remedy}" if remedy else "")
        return UnavailableError(text) if error.code.name == "UNAVAILABLE" else EngineError(text)

    def _find_engine(self, cancellation: Cancellation) -> _Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._make_engine(self._client.capabilities(cancellation))
            return self._engine

    def _make_engine(self, found: reapi.ServerCapabilities) -> _Engine:
        cache, execution = found.cache_capabilities, found.execution_capabilities
        if not execution.exec_enabled:
            raise UnavailableError(
                f"{self._address.text}: the engine stores blobs, but executes nothing; use the "
                "address of its execution service"
            )
        executed = {*execution.digest_functions, execution.digest_function}
        known = [one for one in DigestFunction if one.value in cache.digest_functions]
        functions = [one for one in known if one.value in executed]
        if not functions:
            names = [reapi.DigestFunction.Value.Name(one) for one in cache.digest_functions]
            raise UnavailableError(
                f"{self._address.text}: expected an engine with the digest function SHA256 or "
                f"BLAKE3, found {', '.join(names) or 'none'}"
            )
        function = max(functions, key=lambda one: one is DigestFunction.BLAKE3)
        path = digest_table_path(self._castore, function)
        strategy = reapi.SymlinkAbsolutePathStrategy.DISALLOWED
        return _Engine(
            table=DigestTable(function, path),
            batch_size=cache.max_batch_total_size_bytes,
            absolute_symlinks=cache.symlink_absolute_path_strategy != strategy,
        )

    def _find_shell(self) -> castore_pb2.FileNode:
        """Return the shell, which is the same one for all builds of this object."""
        with self._lock:
            if self._shell is None or not self._castore.has_blob(self._shell.digest):
                self._shell = add_shell(self._castore)
            return self._shell

    def _lower(self, request: Request, engine: _Engine) -> Lowered:
        message = request.message
        shell = self._find_shell() if message.constraints.provide_bin_sh else None
        with _missing_inputs():
            return lower(
                message,
                self._castore,
                engine.table,
                shell=shell,
                properties=self._properties,
                timeout=self._timeout,
            )


@contextmanager
def _missing_inputs() -> Iterator[None]:
    """Refuse a request whose inputs the castore lacks."""
    try:
        yield
    except MissingError as error:
        raise RefusedError([f"inputs: {error}"]) from error


@dataclass
class _Engine:
    """What the engine can do, and the digests in its digest function."""

    table: DigestTable
    batch_size: int
    absolute_symlinks: bool


class _LostBlobsError(Exception):
    """The engine lost blobs of the result."""


@dataclass
class _Build:
    """One build."""

    builder: ReapiBuilder
    request: Request
    engine: _Engine
    session: Session
    lowered: Lowered

    @property
    def _castore(self) -> CastoreStore:
        return self.builder._castore

    def run(self, on_log: OnLog | None) -> BuildResult[Any]:
        """Return the result.

        Raises:
            BuildFailedError: if the command fails, or an output is missing.
        """
        started = datetime.now(timezone.utc)
        cache = self.builder._cache
        result = self.session.find_result(self.lowered.digest) if cache else None
        if result is not None:
            try:
                return self._finish(result, started, on_log)
            except _LostBlobsError:
                cache = False
        return self._finish(self._execute(started, skip_cache=not cache), started, on_log)

    def _execute(self, started: datetime, *, skip_cache: bool) -> reapi.ActionResult:
        from tvix_build.builders.reapi.client import EngineStatusError

        for attempt in range(_ATTEMPTS):
            with _missing_inputs():
                self.session.upload(self._blobs())
            try:
                response = self.session.execute(
                    self.lowered.digest, skip_cache=skip_cache, on_stage=self.builder._on_stage
                )
                return response.result
            except EngineStatusError as error:
                if error.code.name == "DEADLINE_EXCEEDED":
                    failure = f"the time limit of the engine is exceeded: {error.message}"
                    record = self._record(started, reapi.ActionResult(), b"", failure)
                    raise BuildFailedError(failure, record) from error
                if not error.missing or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError

    def _blobs(self) -> Iterator[tuple[reapi.Digest, bytes | Opener]]:
        found = blobs(
            self.lowered,
            self._castore,
            self.engine.table,
            absolute_symlinks=self.engine.absolute_symlinks,
        )
        for digest, source in found:
            if isinstance(source, bytes):
                yield digest, source
            else:
                yield digest, partial(self._castore.open_blob, source.digest)

    def _finish(
        self, result: reapi.ActionResult, started: datetime, on_log: OnLog | None
    ) -> BuildResult[Any]:
        from tvix_build.builders.reapi.client import EngineStatusError

        try:
            log = self._fetch_log(result)
            raised = Raised() if result.exit_code else self._fetch_outputs(result)
        except EngineStatusError as error:
            if error.code.name == "NOT_FOUND":
                raise _LostBlobsError from error
            raise
        if on_log is not None and log:
            on_log(log)
        failure = None
        if result.exit_code:
            failure = f"exit status {result.exit_code}"
        elif raised.missing:
            failure = missing_output(raised.missing[0])
        record = self._record(started, result, log, failure)
        if failure:
            raise BuildFailedError(failure, record)
        for digest, encoding in raised.directories.items():
            if not self._castore.has_directory(digest):
                self._castore.add_directory(encoding)
        self._remember_trees(result, raised)
        needles = [
            scan_node(self._castore, node, self.request.message.refscan_needles)
            for node in raised.nodes
        ]
        response = write_response(self.request, raised.nodes, needles)
        outputs = dict(zip(self.request.message.outputs, raised.nodes, strict=True))
        return BuildResult(response, outputs, record)

    def _fetch_log(self, result: reapi.ActionResult) -> bytes:
        log = b""
        for raw, digest in (
            (result.stdout_raw, result.stdout_digest),
            (result.stderr_raw, result.stderr_digest),
        ):
            log += raw or (self._read(digest) if digest.size_bytes else b"")
        return log

    def _read(self, digest: reapi.Digest) -> bytes:
        """Return a blob, which is in the castore afterwards."""
        known = self.engine.table.find_blob(digest)
        if known is not None and self._castore.has_blob(known):
            with self._castore.open_blob(known) as file:
                return file.read()
        data = self.session.read(digest)
        self.engine.table.add_blobs([(self._castore.add_blob(data), digest)])
        return data

    def _fetch_outputs(self, result: reapi.ActionResult) -> Raised:
        known = self._known_directories(result)
        trees = {
            one.tree_digest.hash: reapi.Tree.FromString(self.session.read(one.tree_digest))
            for one in result.output_directories
            if one.tree_digest.hash not in known
        }
        digests = {one.hash: one for one in result_files(result, trees)}
        return raise_result(
            self.request.message,
            result,
            function=self.engine.table.function,
            trees=trees,
            files=self._fetch_files(digests.values()),
            known=known,
        )

    def _known_directories(
        self, result: reapi.ActionResult
    ) -> dict[str, castore_pb2.DirectoryNode]:
        """Return the nodes of output directories that the castore has completely, by the hash of
        their Tree."""
        found = {}
        for one in result.output_directories:
            digest = self.engine.table.find_tree(one.tree_digest)
            if digest is None or not self._castore.has_directory(digest):
                continue
            size = directory_size(self._castore.directory(digest))
            node = castore_pb2.DirectoryNode(digest=digest, size=size)
            with suppress(MissingError):
                self._castore.closure(castore_pb2.Node(directory=node))
                found[one.tree_digest.hash] = node
        return found

    def _remember_trees(self, result: reapi.ActionResult, raised: Raised) -> None:
        if not raised.directories:
            return
        message = self.request.message
        trees = {one.path: one.tree_digest for one in result.output_directories}
        self.engine.table.add_trees(
            (node.directory.digest, trees[output_path(message, output)])
            for output, node in zip(message.outputs, raised.nodes, strict=True)
            if node.HasField("directory")
        )

    def _fetch_files(self, digests: Iterable[reapi.Digest]) -> dict[str, bytes]:
        """Add files to the castore, unless it has them, and return their BLAKE3 digests by hash."""
        found: dict[str, bytes] = {}
        wanted = []
        for digest in digests:
            known = self.engine.table.find_blob(digest)
            if known is not None and self._castore.has_blob(known):
                found[digest.hash] = known
            else:
                wanted.append(digest)
        if not wanted:
            return found
        # One directory of all files is added to the castore at once.
        with build_directory(Path(self._castore.path, BUILDS)) as directory:
            for digest, pieces in self.session.download(wanted):
                self._save(directory / digest.hash, digest, pieces)
            node = self._castore.ingest(directory)
            for file in self._castore.directory(node.directory.digest).files:
                found[file.name.decode()] = file.digest
        if self.engine.table.function is DigestFunction.BLAKE3:
            self._check_digests(wanted, found)
        self.engine.table.add_blobs((found[digest.hash], digest) for digest in wanted)
        return found

    def _save(self, path: Path, digest: reapi.Digest, pieces: Iterator[bytes]) -> None:
        from tvix_build.builders.reapi.client import wrong_contents

        sha256 = hashlib.sha256()
        with path.open("xb") as file:
            for piece in pieces:
                if self.engine.table.function is DigestFunction.SHA256:
                    sha256.update(piece)
                file.write(piece)
            size = file.tell()
        is_sha256 = self.engine.table.function is DigestFunction.SHA256
        if size != digest.size_bytes or (is_sha256 and sha256.hexdigest() != digest.hash):
            raise wrong_contents(digest)

    @staticmethod
    def _check_digests(wanted: Sequence[reapi.Digest], found: dict[str, bytes]) -> None:
        from tvix_build.builders.reapi.client import wrong_contents

        for digest in wanted:
            if found[digest.hash].hex() != digest.hash:
                raise wrong_contents(digest)

    def _add_log(self, log: bytes) -> bytes:
        digest = blake3_many([log])[0]
        if not self._castore.has_blob(digest):  # A cached result often has a known log.
            self._castore.add_blob(log)
        return digest

    def _record(
        self, started: datetime, result: reapi.ActionResult, log: bytes, failure: str | None
    ) -> BuildRecord:
        metadata = result.execution_metadata
        begin = _time(metadata.execution_start_timestamp) or started
        end = _time(metadata.execution_completed_timestamp) or datetime.now(timezone.utc)
        return BuildRecord(
            builder=self.builder._address.text,
            request_digest=self.request.digest,
            started=begin,
            finished=end,
            exit_status=result.exit_code if result.ByteSize() else None,
            cpu_seconds=0.0,
            peak_memory=0,
            log_digest=self._add_log(log),
            log_size=len(log),
            failure=failure,
        )


def _time(value: Timestamp) -> datetime | None:
    if not value.seconds:
        return None
    seconds = value.seconds + value.nanos / 1e9
    return datetime.fromtimestamp(seconds, timezone.utc)


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
            "apt-get install busybox-static"
        )
    with open(path, "rb") as file:
        digest = castore.add_blob(file)
    return castore_pb2.FileNode(digest=digest, size=castore.blob_size(digest), executable=True)
