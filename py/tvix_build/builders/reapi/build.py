# SPDX-License-Identifier: MIT
"""Runs one request on an engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from reapi.protos import remote_execution_pb2 as reapi
from reapi.protos.google_pb2 import Timestamp
from tvix.castore.protos import castore_pb2
from tvix_build.builders.directories import BUILDS, build_directory
from tvix_build.builders.interface import (
    BuildFailedError,
    BuildRecord,
    BuildResult,
    MissingInputsError,
    OnLog,
    describe_status,
    missing_output,
)
from tvix_build.builders.log import Log
from tvix_build.builders.messages import Request, write_response
from tvix_build.builders.reading import read_pieces
from tvix_build.builders.reapi.client import Opener, Session
from tvix_build.builders.reapi.digests import DigestFunction, DigestTable
from tvix_build.builders.reapi.lowering import Lowered, blobs, output_path
from tvix_build.builders.reapi.raising import Raised, check_digest, raise_result, result_files
from tvix_build.builders.reapi.statuses import EngineStatusError, wrong_contents
from tvix_build.builders.references import scan_node
from tvix_build.castore import CastoreStore, MissingError, directory_size

_ATTEMPTS = 3  # executions of an action whose blobs the engine loses


@contextmanager
def missing_inputs() -> Iterator[None]:
    """Refuse a request whose inputs the castore lacks."""
    try:
        yield
    except MissingError as error:
        raise MissingInputsError([f"inputs: {error}"]) from error


@dataclass
class Engine:
    """An engine, and how it is used.

    Attributes:
        address: the address.
        table: the digests in its digest function.
        batch_size: its limit of a batch in bytes; 0 if there is none.
        absolute_symlinks: whether it accepts symbolic links with absolute targets.
        cache: whether a result that it has in its cache is returned.
        max_log_size: the limit of a log in bytes.
        on_stage: called with the name of each stage of an execution.
    """

    address: str
    table: DigestTable
    batch_size: int
    absolute_symlinks: bool
    cache: bool
    max_log_size: int
    on_stage: Callable[[str], object]


@dataclass
class Build:
    """One build."""

    castore: CastoreStore
    request: Request
    lowered: Lowered
    engine: Engine
    session: Session

    def run(self, on_log: OnLog | None) -> BuildResult[Any]:
        """Return the result.

        Raises:
            BuildFailedError: if the command fails, or an output is missing.
        """
        started = datetime.now(timezone.utc)
        cache = self.engine.cache
        result = self.session.find_result(self.lowered.digest) if cache else None
        if result is not None:
            try:
                return self._finish(result, started, on_log)
            except EngineStatusError as error:
                if error.code.name != "NOT_FOUND":
                    raise
                cache = False  # The engine lost blobs of the result.
        return self._finish(self._execute(started, skip_cache=not cache), started, on_log)

    def _execute(self, started: datetime, *, skip_cache: bool) -> reapi.ActionResult:
        for attempt in range(_ATTEMPTS):
            with missing_inputs():
                self.session.upload(self._blobs())
            try:
                response = self.session.execute(
                    self.lowered.digest, skip_cache=skip_cache, on_stage=self.engine.on_stage
                )
                return response.result
            except EngineStatusError as error:
                if error.code.name == "DEADLINE_EXCEEDED":
                    failure = f"the time limit of the engine is exceeded: {error.message}"
                    with self._log() as log:
                        record = self._record(started, reapi.ActionResult(), log, failure)
                    raise BuildFailedError(failure, record) from error
                if not error.missing or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError

    def _blobs(self) -> Iterator[tuple[reapi.Digest, bytes | Opener]]:
        found = blobs(
            self.lowered,
            self.castore,
            self.engine.table,
            absolute_symlinks=self.engine.absolute_symlinks,
        )
        for digest, source in found:
            if isinstance(source, bytes):
                yield digest, source
            else:
                yield digest, partial(self.castore.open_blob, source.digest)

    def _finish(
        self, result: reapi.ActionResult, started: datetime, on_log: OnLog | None
    ) -> BuildResult[Any]:
        with self._log() as log:
            self._fetch_log(result, log)
            failure = log.failure
            if result.exit_code:
                failure = failure or describe_status(result.exit_code)
            raised = Raised() if failure else self._fetch_outputs(result)
            if on_log is not None:
                for piece in log.pieces():
                    on_log(piece)
            missing = next(iter(raised.missing), None)
            if missing is not None:
                failure = missing_output(missing)
            record = self._record(started, result, log, failure)
        if failure:
            raise BuildFailedError(failure, record, missing_output=missing)
        for digest, encoding in raised.directories.items():
            if not self.castore.has_directory(digest):
                self.castore.add_directory(encoding)
        self._remember_trees(result, raised)
        needles = [
            scan_node(self.castore, node, self.request.message.refscan_needles)
            for node in raised.nodes
        ]
        response = write_response(self.request, raised.nodes, needles)
        outputs = dict(zip(self.request.message.outputs, raised.nodes, strict=True))
        return BuildResult(response, outputs, record)

    def _log(self) -> Log:
        return Log(self.engine.max_log_size, self.castore.path)

    def _fetch_log(self, result: reapi.ActionResult, log: Log) -> None:
        """Add stdout, followed by stderr, to a log, up to its limit."""
        streams = [
            (result.stdout_raw, result.stdout_digest),
            (result.stderr_raw, result.stderr_digest),
        ]
        digests = {
            one.hash: check_digest(one) for raw, one in streams if one.size_bytes and not raw
        }
        # What is too large is not stored, and its beginning cannot be verified.
        fits = sum(one.size_bytes for one in digests.values()) <= self.engine.max_log_size
        stored = self._fetch_files(digests.values()) if fits else {}
        for raw, digest in streams:
            for piece in [raw] if raw else self._pieces(digest, stored):
                log.write(piece)
                if log.exceeded:
                    return

    def _pieces(self, digest: reapi.Digest, stored: Mapping[str, bytes]) -> Iterator[bytes]:
        """Yield a blob, from the castore if it is stored."""
        if digest.hash in stored:
            yield from read_pieces(self.castore.open_blob(stored[digest.hash]))
        elif digest.size_bytes:
            for _, pieces in self.session.download([digest]):
                yield from pieces

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
            digest = self.engine.table.find_tree(check_digest(one.tree_digest))
            if digest is None or not self.castore.has_directory(digest):
                continue
            size = directory_size(self.castore.directory(digest))
            node = castore_pb2.DirectoryNode(digest=digest, size=size)
            with suppress(MissingError):
                self.castore.closure(castore_pb2.Node(directory=node))
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
            if known is not None and self.castore.has_blob(known):
                found[digest.hash] = known
            else:
                wanted.append(digest)
        if not wanted:
            return found
        # One directory of all files is added to the castore at once.
        with build_directory(Path(self.castore.path, BUILDS)) as directory:
            for digest, pieces in self.session.download(wanted):
                self._save(directory / digest.hash, digest, pieces)
            node = self.castore.ingest(directory)
            for file in self.castore.directory(node.directory.digest).files:
                found[file.name.decode()] = file.digest
        if self.engine.table.function is DigestFunction.BLAKE3:
            self._check_digests(wanted, found)
        self.engine.table.add_blobs((found[digest.hash], digest) for digest in wanted)
        return found

    def _save(self, path: Path, digest: reapi.Digest, pieces: Iterator[bytes]) -> None:
        is_sha256 = self.engine.table.function is DigestFunction.SHA256
        sha256 = hashlib.sha256()
        with path.open("xb") as file:
            for piece in pieces:
                if is_sha256:
                    sha256.update(piece)
                file.write(piece)
        if is_sha256 and sha256.hexdigest() != digest.hash:
            raise wrong_contents(digest)

    @staticmethod
    def _check_digests(wanted: Sequence[reapi.Digest], found: dict[str, bytes]) -> None:
        for digest in wanted:
            if found[digest.hash].hex() != digest.hash:
                raise wrong_contents(digest)

    def _record(
        self, started: datetime, result: reapi.ActionResult, log: Log, failure: str | None
    ) -> BuildRecord:
        metadata = result.execution_metadata
        begin = _time(metadata.execution_start_timestamp) or started
        end = _time(metadata.execution_completed_timestamp) or datetime.now(timezone.utc)
        return BuildRecord(
            builder=self.engine.address,
            request_digest=self.request.digest,
            started=begin,
            finished=end,
            exit_status=result.exit_code if result.ByteSize() else None,
            cpu_seconds=0.0,
            peak_memory=0,
            log_digest=log.store(self.castore),
            log_size=log.size,
            failure=failure,
        )


def _time(value: Timestamp) -> datetime | None:
    if not value.seconds:
        return None
    try:
        return datetime.fromtimestamp(value.seconds + value.nanos / 1e9, timezone.utc)
    except (OSError, OverflowError, ValueError):
        return None  # It is not between the years 1 and 9999.
