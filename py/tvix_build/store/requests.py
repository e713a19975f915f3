# SPDX-License-Identifier: MIT
"""The requests and builds in a store."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from tvix_build._core.batch import canonicalize_batch
from tvix_build._core.blake3 import blake3_many
from tvix_build._core.check import canonicalize, check
from tvix_build._core.engine import DIGEST_SIZE
from tvix_build._core.ranges import BytesLike, Offsets
from tvix_build._core.report import Error, Kind, Report, Schema, SchemaLike, refusal
from tvix_build.store.builds import CREATE as CREATE_BUILDS
from tvix_build.store.builds import Row, get_row, make_row, next_row, put_rows, read_row
from tvix_build.store.database import Database, Form, StoreError

if TYPE_CHECKING:
    from tvix_build._core.arrow import ArrowLike
    from tvix_build.builders.interface import BuildResult

SCHEMA = Schema.TVIX_BUILD_V1  # A store does not record the schema of its requests.
HEX_PREFIX = re.compile(f"[0-9a-fA-F]{{1,{2 * DIGEST_SIZE}}}")
# WITHOUT ROWID would be slow for rows that are large compared to a page.
CREATE = f"""
CREATE TABLE request (
    digest BLOB NOT NULL PRIMARY KEY
        CHECK (typeof(digest) = 'blob' AND length(digest) = {DIGEST_SIZE}),
    encoding BLOB NOT NULL CHECK (typeof(encoding) = 'blob')
)
"""
# A stored request is overwritten only if it is damaged.
PUT = """
INSERT INTO request (digest, encoding) VALUES (?, ?)
ON CONFLICT (digest) DO UPDATE SET encoding = excluded.encoding
WHERE encoding IS NOT excluded.encoding
"""


FORM = Form("request store", int.from_bytes(b"tvix", "big"), 1, (CREATE, CREATE_BUILDS))


class UnknownDigestError(Error, KeyError):
    """No stored request has this digest or prefix."""

    def __str__(self) -> str:  # KeyError.__str__ shows the repr.
        return str(self.args[0])


class AmbiguousDigestError(Error, KeyError):
    """Several stored requests have digests with this prefix."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Damage:
    """A damaged request or build, or damage to the database."""

    digest: bytes | None
    """The digest of the damaged request, or of the request of the damaged build; None for damage to
    the database."""
    message: str
    """A text with what was expected and what was found."""


class RequestStore:
    """Stores the canonical encodings of build requests of tvix.build.v1, ordered by digest, and the
    builds of requests of all schemas.

    Writes are atomic. When `put`, `put_many` or `put_build` returns, what it stored is on disk and
    survives a crash of the process or of the machine. Several processes and threads may use a store
    at the same time. A writer waits up to one minute for other writers. If the files of the store
    are deleted, moved or replaced while it is open, writes fail.

    Args:
        path: the file. Its directory must be writable, also for readers, because SQLite creates
            files beside it.
        create: whether to create the store if the file does not exist or is empty.

    Raises:
        StoreError: from the constructor and from all methods, if the file is not a store, has a
            newer version, or is damaged, full, replaced or locked for longer than a minute.
    """

    def __init__(self, path: str | bytes | os.PathLike[str], *, create: bool = True) -> None:
        self._database = Database(path, FORM, create=create)
        self._path = self._database.path

    def put(self, request: BytesLike | Message) -> bytes:
        """Store a request, unless it is stored already, and return its digest.

        Args:
            request: a BuildRequest of tvix.build.v1, as a message or as bytes.

        Returns:
            The digest, 32 bytes.

        Raises:
            ValidationError: if the request has no canonical encoding.
            TypeError: if the request is neither bytes-like nor a BuildRequest of tvix.build.v1.
        """
        encoding = canonicalize(request, kind=Kind.BUILD_REQUEST, schema=SCHEMA)
        digest = blake3_many([encoding]).tobytes()
        self._put([(digest, encoding)])
        return digest

    def put_many(
        self,
        requests: Iterable[BytesLike | Message] | BytesLike | ArrowLike,
        *,
        offsets: Offsets | tuple[Offsets, Offsets] | None = None,
    ) -> list[bytes]:
        """Store many requests, and return their digests. After an error, none of them is stored.
        Arguments as for `tvix_build.canonicalize_batch`.

        Returns:
            The digests, in order, 32 bytes each.

        Raises:
            ValidationError: for the first request without a canonical encoding; `index` is its
                index.
            TypeError: if an item is neither bytes-like nor a BuildRequest of tvix.build.v1.
            ValueError: as `canonicalize_batch`.
        """
        batch = canonicalize_batch(
            requests, kind=Kind.BUILD_REQUEST, offsets=offsets, schema=SCHEMA
        )
        rows = blake3_many(batch.data, offsets=batch.offsets).tobytes()
        digests = [rows[i : i + DIGEST_SIZE] for i in range(0, len(rows), DIGEST_SIZE)]
        self._put(zip(digests, batch, strict=True))
        return digests

    def get(self, digest: bytes | str) -> bytes:
        """Return the canonical encoding of a request, after checking its digest.

        Args:
            digest: the digest as 32 bytes or 64 hexadecimal digits, or a unique prefix in
                hexadecimal.

        Raises:
            UnknownDigestError: if no request has this digest or prefix.
            AmbiguousDigestError: if several requests have this prefix.
            ValueError: if the argument is not a digest or a prefix.
            StoreError: if the stored request has another digest.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT digest, CAST(encoding AS BLOB) FROM request"
                " WHERE digest BETWEEN ? AND ? LIMIT 2",
                _range(digest),
            ).fetchall()
        shown = digest if isinstance(digest, str) else digest.hex()
        if not rows:
            raise UnknownDigestError(f"{self._path}: no request with the digest {shown}")
        if len(rows) > 1:
            several = " and ".join(row[0].hex() for row in rows)
            raise AmbiguousDigestError(
                f"{self._path}: several digests begin with {shown}, such as {several}"
            )
        key, encoding = rows[0]
        found = blake3_many([encoding]).tobytes()
        if found != key:
            raise StoreError(
                f"{self._path}: the request with the digest {key.hex()} is damaged: found the "
                f"digest {found.hex()}"
            )
        return bytes(encoding)

    def has(self, digest: bytes | str) -> bool:
        """Return whether a request has this digest or prefix.

        Args:
            digest: the digest as 32 bytes, or 1 to 64 hexadecimal digits.

        Raises:
            ValueError: if the argument is not a digest or a prefix.
        """
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM request WHERE digest BETWEEN ? AND ?)", _range(digest)
            ).fetchone()
        return bool(row[0])

    def __contains__(self, digest: object) -> bool:
        """As `has`, but return false for an object that is not a digest or a prefix."""
        if not isinstance(digest, (bytes, str)):
            return False
        try:
            _range(digest)
        except ValueError:
            return False
        return self.has(digest)

    def __len__(self) -> int:
        with self._database.read() as connection:
            count: int = connection.execute("SELECT count(*) FROM request").fetchone()[0]
        return count

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all digests and encodings, ordered by digest, without checking them; see `verify`.
        One request is in memory at a time. Concurrent changes may be visible."""
        return self._rows("digest", b"")

    def put_build(self, result: BuildResult[Any], *, schema: SchemaLike | None = None) -> None:
        """Store a successful build under the digest of its request, instead of an earlier build of
        the same request. The request itself is not stored.

        Args:
            result: the build, as a builder returned it.
            schema: the schema of a response that is bytes; by default tvix.build.v1.

        Raises:
            ValidationError: if the response has no canonical encoding.
            TypeError: if the response is neither bytes-like nor a response of this schema.
        """
        self.put_builds([result], schema=schema)

    def put_builds(
        self, results: Iterable[BuildResult[Any]], *, schema: SchemaLike | None = None
    ) -> None:
        """Store many builds. After an error, none of them is stored. Arguments and errors as for
        `put_build`."""
        rows = [make_row(result, schema) for result in results]
        with self._database.write() as connection:
            put_rows(connection, rows)

    def get_build(
        self, digest: bytes, *, schema: SchemaLike | None = None
    ) -> BuildResult[bytes] | None:
        """Return the build of a request, or None. The castore may have lost the outputs.

        Args:
            digest: the digest of the request, 32 bytes.
            schema: the schema of the request; by default tvix.build.v1.

        Raises:
            ValueError: if the argument is not a digest, or the schema is unknown.
            StoreError: if the stored build is damaged.
        """
        _range(digest)
        with self._database.read() as connection:
            row = get_row(connection, digest, Schema(schema or SCHEMA))
        return None if row is None else self._read_build(row)[1]

    def builds(self) -> Iterator[tuple[Schema, BuildResult[bytes]]]:
        """Yield the schema and the result of all builds, in the order in which they were stored.

        Raises:
            StoreError: if a stored build is damaged.
        """
        return map(self._read_build, self._build_rows())

    def _read_build(self, row: Row) -> tuple[Schema, BuildResult[bytes]]:
        try:
            return read_row(row)
        except ValueError as error:
            raise StoreError(f"{self._path}: the build of {row.digest.hex()}: {error}") from None

    def verify(self) -> list[Damage]:
        """Read the whole store, and return all damage: to the database, requests that are not
        canonical, requests with another digest, and builds that cannot be read."""
        found = []
        try:
            with self._database.read() as connection:
                for (line,) in connection.execute("PRAGMA integrity_check").fetchall():
                    if line != "ok":
                        found.append(Damage(None, line))
            # In the order of rows, so that a damaged index or digest does not hide requests.
            for digest, encoding in self._rows("rowid", -(2**63)):
                message = _damage(digest, encoding)
                if message is not None:
                    found.append(Damage(digest, message))
            for row in self._build_rows():
                try:
                    read_row(row)
                except ValueError as error:
                    found.append(Damage(row.digest, str(error)))
        except StoreError as error:  # The database cannot be read.
            found.append(Damage(None, str(error)))
        return found

    def close(self) -> None:
        """Close the store, which cannot be used afterwards. Leaving the context also closes it."""
        self._database.close()

    def __enter__(self) -> RequestStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        with self._database.write() as connection:
            connection.executemany(PUT, rows)

    def _rows(self, column: str, last: bytes | int) -> Iterator[tuple[bytes, bytes]]:
        """Yield digests and encodings, ordered by a column, after `last`."""
        # One query per row, so that a suspended iterator holds no lock and no transaction.
        query = (
            f"SELECT {column}, CAST(digest AS BLOB), CAST(encoding AS BLOB) FROM request"
            f" WHERE {column} > ? ORDER BY {column} LIMIT 1"
        )
        while True:
            with self._database.read() as connection:
                row = connection.execute(query, (last,)).fetchone()
                if row is None:
                    return
                if row[0] <= last:
                    raise sqlite3.DatabaseError("the database is damaged: rows are out of order")
            last = row[0]
            yield row[1] or b"", row[2] or b""

    def _build_rows(self) -> Iterator[Row]:
        last = -(2**63)
        while True:
            with self._database.read() as connection:
                found = next_row(connection, last)
            if found is None:
                return
            last, row = found
            yield row


def _range(digest: bytes | str) -> tuple[bytes, bytes]:
    """Return the first and the last digest with a prefix; both are a complete digest itself."""
    if isinstance(digest, str):
        if HEX_PREFIX.fullmatch(digest) is None:
            raise ValueError(f"expected 1 to {2 * DIGEST_SIZE} hex digits, found {digest!r}")
        size = 2 * DIGEST_SIZE
        return bytes.fromhex(digest.ljust(size, "0")), bytes.fromhex(digest.ljust(size, "f"))
    if not isinstance(digest, bytes):
        raise TypeError(f"expected bytes or hex digits, found {type(digest).__name__}")
    if len(digest) != DIGEST_SIZE:
        raise ValueError(f"expected a digest of {DIGEST_SIZE} bytes, found {len(digest)}")
    return digest, digest


def _damage(digest: bytes, encoding: bytes) -> str | None:
    """Return the damage of a row; None if it has none."""
    report: Report = check(encoding, kind=Kind.BUILD_REQUEST, schema=SCHEMA)
    if report.digest is None:
        return f"expected a canonical request, found an invalid request: {refusal(report)}"
    if not report.canonical:
        return "expected a canonical request, found another encoding"
    if report.digest != digest:
        return f"expected a request with this digest, found the digest {report.digest.hex()}"
    return None
