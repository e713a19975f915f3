# SPDX-License-Identifier: MIT
"""A builder that runs no command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from google.protobuf.message import Message

from tvix.castore.protos.castore_pb2 import FileNode, Node
from tvix_build._core.ranges import BytesLike
from tvix_build.builders import BuildRecord, BuildResult
from tvix_build.builders.interface import OnLog
from tvix_build.builders.messages import Request, read_request, write_response
from tvix_build.castore import CastoreStore


def describe(request: Request) -> bytes:
    """Return the contents of all outputs of a build that is deterministic."""
    return request.digest.hex().encode()


class FakeBuilder:
    """Makes a file for each output of a request.

    Args:
        castore: the castore for the files.
        contents: returns what a file contains, or raises the error of the build.

    Attributes:
        built: the digests of the requests, in the order of the builds.
    """

    def __init__(
        self, castore: CastoreStore, contents: Callable[[Request], bytes] = describe
    ) -> None:
        self._castore = castore
        self._contents = contents
        self.built: list[bytes] = []

    def build(
        self, request: Message | BytesLike, *, schema: Any = None, on_log: OnLog | None = None
    ) -> BuildResult[Any]:
        found = read_request(request, schema)
        self.built.append(found.digest)
        started = datetime.now(timezone.utc)
        contents = self._contents(found)
        if on_log is not None:
            on_log(b"building\n")
        outputs = {}
        for path in found.message.outputs:
            file = FileNode(
                name=path.rpartition("/")[2].encode(),
                digest=self._castore.add_blob(contents),
                size=len(contents),
            )
            outputs[path] = Node(file=file)
        record = BuildRecord(
            builder="fake:",
            request_digest=found.digest,
            started=started,
            finished=datetime.now(timezone.utc),
            exit_status=0,
            cpu_seconds=0.0,
            peak_memory=0,
            log_digest=self._castore.add_blob(b"building\n"),
            log_size=9,
        )
        nodes = list(outputs.values())
        return BuildResult(write_response(found, nodes, [[]] * len(nodes)), outputs, record)

    async def build_async(
        self, request: Message | BytesLike, *, schema: Any = None, on_log: OnLog | None = None
    ) -> BuildResult[Any]:
        return await asyncio.to_thread(self.build, request, schema=schema, on_log=on_log)
