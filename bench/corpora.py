# SPDX-License-Identifier: MIT
"""The corpora: files of size-delimited messages, made once and kept in a cache.

A corpus of the same name has the same bytes each time it is made; only nixpkgs' need data from
outside.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Where nixpkgs' requests are; TVIX_BUILD_SHARED_DATA names another directory.
SHARED_DATA = Path(os.environ.get("TVIX_BUILD_SHARED_DATA") or ROOT.parent / "shared" / "data")

_NIX_BASE32 = b"0123456789abcdfghijklmnpqrsvwxyz"
_WORDS = (b"bash", b"coreutils", b"gcc", b"glibc", b"libxml2", b"ncurses", b"perl", b"util-linux")


# ---- the format


def split(stream: bytes) -> tuple[array[int], array[int]]:
    """Where the messages of a size-delimited stream begin and end, in bytes."""
    begins, ends = array("Q"), array("Q")
    at = 0
    while at < len(stream):
        size = shift = 0
        while True:
            byte = stream[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        begins.append(at)
        at += size
        ends.append(at)
    return begins, ends


def messages_of(stream: bytes) -> Iterator[bytes]:
    """The messages of a size-delimited stream."""
    begins, ends = split(stream)
    return (stream[begin:end] for begin, end in zip(begins, ends, strict=True))


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def delimited(message: bytes) -> bytes:
    """A message with its length before it."""
    return varint(len(message)) + message


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    return varint(number << 3 | 2) + varint(len(value)) + value


# ---- requests


def _name(rng: random.Random) -> bytes:
    """A base name as in /nix/store."""
    number = rng.getrandbits(160)
    letters = bytes(_NIX_BASE32[number >> shift & 31] for shift in range(0, 160, 5))
    word = rng.choice(_WORDS)
    return b"%b-%b-%d.%d" % (letters, word, rng.randrange(10), rng.randrange(100))


def _node(rng: random.Random, name: bytes) -> bytes:
    """A root node: mostly a directory, now and then a file or a symlink."""
    kind = rng.random()
    if kind < 0.02:
        return _field(3, _field(1, name) + _field(2, b"../" + name))
    content = _field(1, name) + _field(2, rng.randbytes(32)) + _field(3, rng.randrange(1, 1 << 20))
    if kind < 0.25:
        return _field(2, content + _field(4, rng.randrange(2)))
    return _field(1, content)


def _request(
    rng: random.Random, inputs: Iterable[bytes], variables: dict[bytes, bytes], output: bytes
) -> bytes:
    """A request; its inputs come in the order given."""
    shell = b"/nix/store/%b/bin/bash" % _name(rng)
    return b"".join(
        [
            _field(1, shell),
            _field(2, output),
            *(_field(3, _field(1, key) + _field(2, variables[key])) for key in sorted(variables)),
            *(_field(4, _node(rng, name)) for name in inputs),
            _field(5, _field(1, b"x86_64-linux")),
        ]
    )


def _names(rng: random.Random, count: int) -> list[bytes]:
    """The given number of different names, unordered."""
    names = dict.fromkeys(_name(rng) for _ in range(count))
    assert len(names) == count
    return list(names)


def tiny(count: int) -> Iterator[bytes]:
    """Canonical requests of about 300 bytes."""
    rng = random.Random("tiny")
    for _ in range(count):
        output, *inputs = _names(rng, 2)
        yield _request(rng, sorted(inputs), {b"out": b"/nix/store/" + output}, output)


def unsorted(requests: int, inputs: int) -> Iterator[bytes]:
    """Requests with the given number of inputs each, unordered."""
    rng = random.Random("unsorted")
    for _ in range(requests):
        output, *names = _names(rng, 1 + inputs)
        yield _request(rng, names, {b"PATH": b"/bin"}, output)


def common_prefix(requests: int, inputs: int) -> Iterator[bytes]:
    """As `unsorted`; the inputs' names differ in their last bytes only."""
    rng = random.Random("common prefix")
    for _ in range(requests):
        prefix = b"-".join(_names(rng, 4))[:160]
        names = [b"%b-%07d" % (prefix, i) for i in range(inputs)]
        rng.shuffle(names)
        yield _request(rng, names, {b"PATH": b"/bin"}, _name(rng))


def shuffled(messages: Iterable[bytes]) -> Iterator[bytes]:
    """The same requests with their sorted lists in no order."""
    from tvix.build.protos.build_pb2 import BuildRequest

    rng = random.Random("shuffled")
    for data in messages:
        request = BuildRequest.FromString(data)
        request.outputs.sort(key=lambda _: rng.random())
        request.environment_vars.sort(key=lambda _: rng.random())
        request.inputs.sort(key=lambda _: rng.random())
        yield request.SerializeToString()


def blobs(size: int, total: int) -> Iterator[bytes]:
    """Random messages of `size` bytes each, `total` bytes together: something to hash."""
    rng = random.Random(f"blobs {size}")
    return (rng.randbytes(size) for _ in range(total // size))


def small_files(count: int) -> Iterator[bytes]:
    """Contents of files: random bytes, 100 to 4096 of them."""
    rng = random.Random("small files")
    return (rng.randbytes(rng.randint(100, 4096)) for _ in range(count))


# ---- nixpkgs


class NoDataError(Exception):
    """A corpus cannot be made here; says why."""


def nixpkgs(name: str) -> Iterator[bytes]:
    """The requests of nixpkgs 14.04: "direct" or "closure"."""
    return messages_of(_unpacked(f"{name}.binpbs"))


def derivations() -> Iterator[bytes]:
    """The derivations of nixpkgs 14.04 in the order of their names: file name, NUL, text."""
    with tarfile.open(fileobj=io.BytesIO(_unpacked("drvs.tar"))) as archive:
        texts = {
            os.path.basename(member.name): file.read()
            for member in archive
            if (file := archive.extractfile(member))
        }
    return (b"%s\0%s" % (name.encode(), texts[name]) for name in sorted(texts))


def _unpacked(name: str) -> bytes:
    import zstandard

    path = SHARED_DATA / f"nixpkgs-14.04.{name}.zst"
    if not path.exists():
        raise NoDataError(f"{path.name} is not in ../shared/data; see TVIX_BUILD_SHARED_DATA")
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read()


# ---- the project's vectors


def vectors(*files: str) -> Iterator[bytes]:
    """The build requests of some of tests/vectors, good and bad."""
    for name in files:
        rows = json.loads((ROOT / "tests" / "vectors" / f"{name}.json").read_text())["vectors"]
        yield from (bytes.fromhex(row["hex"]) for row in rows if row["kind"] == "build-request")


# ---- the cache


class Cache:
    """A directory of corpora. What another version of this file made is cleared away."""

    def __init__(self, directory: Path) -> None:
        version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
        self._directory = directory / version
        for other in directory.glob("*"):
            if other != self._directory:
                shutil.rmtree(other)

    def get(self, name: str, make: Callable[[], Iterable[bytes]]) -> Path:
        """The file of the corpus `name`, whose messages `make` gives.

        Raises:
            NoDataError: if it cannot be made here.
        """
        path = self._directory / f"{name}.binpbs"
        if not path.exists():
            messages = make()
            self._directory.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part")
            with unfinished.open("wb") as file:
                file.writelines(map(delimited, messages))
            unfinished.rename(path)
        return path
