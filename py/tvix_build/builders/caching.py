# SPDX-License-Identifier: MIT
"""A builder that keeps builds in a store, and one that builds twice and compares."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Any

from google.protobuf.message import Message

from tvix.castore.protos.castore_pb2 import Node
from tvix_build._core.batch import serialized, type_of
from tvix_build._core.check import canonicalize, digest, validate
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import Kind, SchemaLike
from tvix_build.builders.interface import Builder, BuilderError, BuildResult, OnLog
from tvix_build.builders.messages import response_class
from tvix_build.castore import (
    CastoreError,
    CastoreStore,
    Difference,
    MissingError,
    SizeMismatchError,
    compare_nodes,
)
from tvix_build.store import RequestStore

__all__ = ["CachingBuilder", "CheckingBuilder", "NotReproducibleError", "has_outputs"]

_SHOWN = 5


class NotReproducibleError(BuilderError):
    """Two builds of a request have different outputs.

    Attributes:
        differences: the path of each output with its first differences, at most five in total.
    """

    def __init__(self, differences: Iterable[tuple[str, Difference]]) -> None:
        self.differences: tuple[tuple[str, Difference], ...] = tuple(differences)
        super().__init__(self.differences)

    def __str__(self) -> str:
        lines = [f"{_join(output, one.path)}: {one.message}" for output, one in self.differences]
        return f"a second build has other outputs: {'; '.join(lines)}"


def _join(output: str, path: bytes) -> str:
    return f"{output}/{path.decode(errors='backslashreplace')}" if path else output


def has_outputs(castore: CastoreStore, nodes: Iterable[Node]) -> bool:
    """Return whether a castore has nodes with all that they refer to. If so, garbage collection
    does not remove them during the grace period that begins now."""
    try:
        for node in nodes:
            kind = node.WhichOneof("node")
            # First, so that nothing is removed after it has been found.
            if kind == "file" and not castore.has_blob(node.file.digest):
                return False
            if kind == "directory" and not castore.has_directory(node.directory.digest):
                return False
            castore.closure(node)
    except (CastoreError, MissingError, SizeMismatchError):
        return False
    return True


class CachingBuilder:
    """Returns stored builds, and stores those of another builder.

    A stored build whose outputs the castore does not have is built again. Failed builds are not
    stored.

    Args:
        builder: the builder of what is not stored.
        store: the store of builds.
        castore: the castore of the builder.
        rebuild: whether to build also what is stored, and to store the new build instead.
    """

    def __init__(
        self,
        builder: Builder,
        *,
        store: RequestStore,
        castore: CastoreStore,
        rebuild: bool = False,
    ) -> None:
        self._builder = builder
        self._store = store
        self._castore = castore
        self._rebuild = rebuild

    def build(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `Builder.build`. The log of a stored build is not repeated."""
        stored = self._find(request, schema)
        if stored is not None:
            return stored
        result = self._builder.build(request, schema=schema, on_log=on_log)
        self._store.put_build(result, schema=schema)
        return result

    async def build_async(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `Builder.build_async`. The log of a stored build is not repeated."""
        stored = await asyncio.to_thread(self._find, request, schema)
        if stored is not None:
            return stored
        result = await self._builder.build_async(request, schema=schema, on_log=on_log)
        await asyncio.to_thread(self._store.put_build, result, schema=schema)
        return result

    def _find(
        self, request: Message | BytesLike, schema: SchemaLike | None
    ) -> BuildResult[Any] | None:
        if self._rebuild:
            return None
        found = type_of(request, Kind.BUILD_REQUEST, schema).schema
        data = bytes(serialized(request))
        validate(data, schema=found)
        encoding = canonicalize(data, schema=found)
        stored = self._store.get_build(digest(encoding, schema=found), schema=found)
        if stored is None or not has_outputs(self._castore, stored.outputs.values()):
            return None
        if not isinstance(request, Message):
            return stored
        response = response_class(found).FromString(stored.response)
        return BuildResult(response, stored.outputs, stored.record)


class CheckingBuilder:
    """Builds each request twice, and compares the outputs.

    Args:
        builder: the builder whose results are returned, for example a CachingBuilder.
        again: the builder of the second build. It must not return stored builds.
        castore: the castore of both.
    """

    def __init__(self, builder: Builder, *, again: Builder, castore: CastoreStore) -> None:
        self._builder = builder
        self._again = again
        self._castore = castore

    def build(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `Builder.build`.

        Raises:
            NotReproducibleError: if the outputs of the second build differ.
        """
        first = self._builder.build(request, schema=schema, on_log=on_log)
        self._compare(first, self._again.build(request, schema=schema, on_log=on_log))
        return first

    async def build_async(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `Builder.build_async`.

        Raises:
            NotReproducibleError: if the outputs of the second build differ.
        """
        first = await self._builder.build_async(request, schema=schema, on_log=on_log)
        second = await self._again.build_async(request, schema=schema, on_log=on_log)
        await asyncio.to_thread(self._compare, first, second)
        return first

    def _compare(self, first: BuildResult[Any], second: BuildResult[Any]) -> None:
        differences = (
            (path, difference)
            for path, node in first.outputs.items()
            for difference in compare_nodes(self._castore, node, second.outputs[path])
        )
        found = list(islice(differences, _SHOWN))
        if found:
            raise NotReproducibleError(found)
