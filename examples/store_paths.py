# SPDX-License-Identifier: MIT
"""Writes derivations and sources to a directory, under the store paths that Nix gives them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tvix_build.nix import Derivation, Output, unparse


class Store:
    """A directory with files under their names in a Nix store.

    Args:
        directory: the directory, which exists.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._hashes: dict[str, str] = {}
        self._outputs: dict[str, str] = {}

    def add(self, source: Path, name: str) -> str:
        """Move a source to the directory, and return its store path."""
        path = store_path("source", nar_hash(source), name)
        source.rename(self._directory / os.path.basename(path))
        return path

    def derive(
        self,
        name: str,
        system: str,
        builder: str,
        arguments: Iterable[str],
        environment: Mapping[str, str],
        *,
        sources: Iterable[str] = (),
        inputs: Iterable[str] = (),
    ) -> str:
        """Write a derivation with one output, and return its store path.

        Args:
            name: the name of the output.
            environment: the variables, without those that Nix adds.
            sources: the store paths of the sources.
            inputs: the store paths of input derivations, which this method returned.
        """
        variables = {**environment, "builder": builder, "name": name, "out": "", "system": system}
        derivation = Derivation(
            outputs={"out": Output("")},
            input_derivations=dict.fromkeys(sorted(inputs), ("out",)),
            input_sources=tuple(sorted(sources)),
            system=system,
            builder=builder,
            arguments=tuple(arguments),
            environment={key: value.encode() for key, value in sorted(variables.items())},
        )
        output = store_path("output:out", self._hash(derivation), name)
        derivation = replace(
            derivation,
            outputs={"out": Output(output)},
            environment={**derivation.environment, "out": output.encode()},
        )
        data = unparse(derivation)
        references = sorted((*derivation.input_sources, *derivation.input_derivations))
        kind = ":".join(("text", *references))
        path = store_path(kind, hashlib.sha256(data).hexdigest(), f"{name}.drv")
        (self._directory / os.path.basename(path)).write_bytes(data)
        self._hashes[path] = self._hash(derivation)
        self._outputs[path] = output
        return path

    def output(self, derivation: str) -> str:
        """Return the path of the output of a derivation that `derive` returned."""
        return self._outputs[derivation]

    def _hash(self, derivation: Derivation) -> str:
        """Return the SHA-256 digest of a derivation in which the paths of input derivations are
        replaced by such digests."""
        inputs = {self._hashes[path]: names for path, names in derivation.input_derivations.items()}
        replaced = replace(derivation, input_derivations=dict(sorted(inputs.items())))
        return hashlib.sha256(unparse(replaced)).hexdigest()


def store_path(kind: str, digest: str, name: str) -> str:
    """Return a store path: its hash is that of the kind, a SHA-256 digest in hexadecimal, and the
    name."""
    text = f"{kind}:sha256:{digest}:/nix/store:{name}"
    folded = bytearray(20)
    for i, byte in enumerate(hashlib.sha256(text.encode()).digest()):
        folded[i % 20] ^= byte
    number = int.from_bytes(folded, "little")
    digits = "0123456789abcdfghijklmnpqrsvwxyz"
    return f"/nix/store/{''.join(digits[number >> i & 31] for i in range(155, -1, -5))}-{name}"


def nar_hash(path: Path) -> str:
    """Return the SHA-256 digest of the archive (NAR) of a file or directory."""
    hasher = hashlib.sha256(string(b"nix-archive-1"))
    for piece in archived(path):
        hasher.update(piece)
    return hasher.hexdigest()


def archived(path: Path) -> Iterator[bytes]:
    """Yield the archive of a file system object."""
    yield string(b"(") + string(b"type")
    if path.is_symlink():
        yield string(b"symlink") + string(b"target") + string(os.fsencode(os.readlink(path)))
    elif path.is_dir():
        yield string(b"directory")
        for child in sorted(path.iterdir(), key=lambda child: os.fsencode(child.name)):
            yield from map(string, (b"entry", b"(", b"name", os.fsencode(child.name), b"node"))
            yield from archived(child)
            yield string(b")")
    else:
        yield string(b"regular")
        if os.access(path, os.X_OK):
            yield string(b"executable") + string(b"")
        yield string(b"contents") + string(path.read_bytes())
    yield string(b")")


def string(value: bytes) -> bytes:
    """Return a string with its length before it, padded to 8 bytes."""
    return len(value).to_bytes(8, "little") + value + bytes(-len(value) % 8)
