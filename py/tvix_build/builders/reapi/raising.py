# SPDX-License-Identifier: MIT
"""Raises results of the Remote Execution API to castore nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from reapi.protos import remote_execution_pb2 as reapi
from tvix.castore.protos import castore_pb2
from tvix_build._core.check import check
from tvix_build._core.nodes import member_of
from tvix_build._core.report import Kind
from tvix_build.builders.reapi.digests import DigestFunction
from tvix_build.builders.reapi.lowering import output_path

if TYPE_CHECKING:
    from snix.build.protos.build_pb2 import BuildRequest


class ResultError(Exception):
    """A result is not what an action of the request can have."""


@dataclass
class Raised:
    """The outputs of an action in a castore.

    Attributes:
        nodes: the nodes of the outputs, in the order of the request, with their names.
        directories: the encodings of all their Directories by digest, children before parents.
        missing: the outputs that the result lacks.
    """

    nodes: list[castore_pb2.Node] = field(default_factory=list)
    directories: dict[bytes, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def check_digest(digest: reapi.Digest) -> reapi.Digest:
    """Return a digest of a result. Its hash can be the name of a file.

    Raises:
        ResultError: if the hash has another form.
    """
    if not re.fullmatch("[0-9a-f]{64}", digest.hash):
        raise ResultError(f"expected a digest of 64 hexadecimal digits, found {digest.hash!r}")
    return digest


def result_files(
    result: reapi.ActionResult, trees: Mapping[str, reapi.Tree]
) -> Iterator[reapi.Digest]:
    """Yield the digests of all files of a result, some more than once.

    Args:
        result: the result.
        trees: its Trees by hash; files of others are not yielded.

    Raises:
        ResultError: if a digest has another form.
    """
    for output in result.output_files:
        yield check_digest(output.digest)
    for one in result.output_directories:
        tree = trees.get(one.tree_digest.hash, reapi.Tree())
        for directory in (tree.root, *tree.children):
            for file in directory.files:
                yield check_digest(file.digest)


def raise_result(
    request: BuildRequest,
    result: reapi.ActionResult,
    *,
    function: DigestFunction,
    trees: Mapping[str, reapi.Tree],
    files: Mapping[str, bytes],
    known: Mapping[str, castore_pb2.DirectoryNode] = MappingProxyType({}),
) -> Raised:
    """Return the castore nodes of the outputs of a request.

    Args:
        request: the request of snix.build.v1.
        result: the result of its action.
        function: the digest function of the result.
        trees: the Trees of the result by hash, without those of `known`.
        files: the BLAKE3 digests of the files of the result by hash.
        known: nodes that are known already, by the hash of their Tree. Their Directories are not
            among those of the result.

    Raises:
        ResultError: if the result is inconsistent, or has a name that no castore node can have.
    """
    found: dict[str, Any] = {one.path: one for one in result.output_files}
    found |= {one.path: one for one in result.output_directories}
    for links in (
        result.output_symlinks,
        result.output_file_symlinks,
        result.output_directory_symlinks,
    ):
        found |= {one.path: one for one in links}
    raised = Raised()
    for output in request.outputs:
        one = found.get(output_path(request, output))
        if one is None:
            raised.missing.append(output)
            continue
        node = castore_pb2.Node()
        if isinstance(one, reapi.OutputFile):
            node.file.CopyFrom(_file(one, files))
        elif isinstance(one, reapi.OutputSymlink):
            node.symlink.target = one.target.encode()
        elif one.tree_digest.hash in known:
            node.directory.CopyFrom(known[one.tree_digest.hash])
        else:
            tree = _Tree(trees[one.tree_digest.hash], function, files, raised.directories)
            digest, size = tree.raise_root()
            node.directory.digest, node.directory.size = digest, size
        _, member = member_of(node)
        member.name = output.rpartition("/")[2].encode()
        raised.nodes.append(node)
    return raised


def _file(
    one: reapi.OutputFile | reapi.FileNode, files: Mapping[str, bytes], name: str = ""
) -> castore_pb2.FileNode:
    return castore_pb2.FileNode(
        name=name.encode(),
        digest=files[one.digest.hash],
        size=one.digest.size_bytes,
        executable=one.is_executable,
    )


class _Tree:
    """A Tree that becomes castore Directories."""

    def __init__(
        self,
        tree: reapi.Tree,
        function: DigestFunction,
        files: Mapping[str, bytes],
        directories: dict[bytes, bytes],
    ) -> None:
        # Protobuf keeps fields that our schema lacks, and they come last in a Directory.
        self._directories_by_hash: dict[str | None, reapi.Directory] = {
            function.digest(child.SerializeToString(deterministic=True)).hash: child
            for child in tree.children
        }
        self._directories_by_hash[None] = tree.root
        self._files = files
        self._directories = directories
        self._raised: dict[str | None, tuple[bytes, int]] = {}

    def raise_root(self) -> tuple[bytes, int]:
        """Return the castore digest and the size of the root."""
        stack: list[str | None] = [None]
        while stack:
            if stack[-1] in self._raised:
                stack.pop()
                continue
            directory = self._directory(stack[-1])
            unknown = [
                child.digest.hash
                for child in directory.directories
                if child.digest.hash not in self._raised
            ]
            if unknown:
                stack += unknown
            else:
                self._raised[stack.pop()] = self._raise(directory)
        return self._raised[None]

    def _directory(self, hash_: str | None) -> reapi.Directory:
        found = self._directories_by_hash.get(hash_)
        if found is None:
            raise ResultError(f"the Tree of an output lacks the Directory {hash_}")
        return found

    def _raise(self, directory: reapi.Directory) -> tuple[bytes, int]:
        message = castore_pb2.Directory()
        for file in directory.files:
            message.files.append(_file(file, self._files, file.name))
        for child in directory.directories:
            digest, size = self._raised[child.digest.hash]
            message.directories.add(name=child.name.encode(), digest=digest, size=size)
        for link in directory.symlinks:
            message.symlinks.add(name=link.name.encode(), target=link.target.encode())
        for nodes in (message.files, message.directories, message.symlinks):
            nodes.sort(key=lambda node: node.name)
        encoding = message.SerializeToString(deterministic=True)
        report = check(encoding, kind=Kind.DIRECTORY)
        if report.digest is None or not report.valid:
            raise ResultError(f"a Directory of an output is invalid: {report.violations[0]}")
        self._directories[report.digest] = encoding
        below = sum(1 + node.size for node in message.directories)
        return report.digest, below + len(message.files) + len(message.symlinks)
