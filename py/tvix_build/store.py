# SPDX-License-Identifier: MIT
"""A store of build requests of tvix.build.v1 by digest.

    >>> from tvix_build import build_request
    >>> from tvix_build.store import RequestStore
    >>> with RequestStore("requests.sqlite") as store:
    ...     digest = store.put(build_request(command_args=["/bin/true"]))
    ...     store.get(digest) == store.get(digest.hex()[:8])
    True

A store is an SQLite database in one file. While it is open, SQLite uses two more files beside it.
Threads may share a RequestStore. Each process must open its own, also after a fork.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from tvix_build._core.batch import canonicalize_batch
from tvix_build._core.blake3 import blake3_many
from tvix_build._core.check import canonicalize, check
from tvix_build._core.engine import DIGEST_SIZE
from tvix_build._core.ranges import BytesLike, Offsets
from tvix_build._core.report import Error, Kind, Report, Schema, refusal

if TYPE_CHECKING:
    from tvix_build._core.arrow import ArrowLike

__all__ = ["AmbiguousDigestError", "Damage", "RequestStore", "StoreError", "UnknownDigestError"]

SCHEMA = Schema.TVIX_BUILD_V1  # A store does not record the schema of its requests.
APPLICATION_ID = int.from_bytes(b"tvix", "big")
VERSION = 1
BUSY_SECONDS = 60.0  # A large put_many of another process may take this long.
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


class StoreError(Error):
    """A file is not a request store, has a newer version, is damaged, or cannot be read or
    written."""


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
    """A damaged request, or damage to the database."""

    digest: bytes | None
    """The digest under which the damaged request is stored; None for damage to the database."""
    message: str
    """A text with what was expected and what was found."""


class RequestStore:
    """Stores the canonical encodings of build requests of tvix.build.v1, ordered by digest.

    Writes are atomic. When `put` or `put_many` returns, the requests are on disk and survive a
    crash of the process or of the machine. Several processes and threads may use a store at the
    same time. A writer waits up to one minute for other writers. If the files of the store are
    deleted, moved or replaced while it is open, writes fail.

    Args:
        path: the file. Its directory must be writable, also for readers, because SQLite creates
            files beside it.
        create: whether to create the store if the file does not exist or is empty.

    Raises:
        StoreError: from the constructor and from all methods, if the file is not a store, has a
            newer version, or is damaged, full, replaced or locked for longer than a minute.
    """

    def __init__(self, path: str | bytes | os.PathLike[str], *, create: bool = True) -> None:
        self._path = os.fsdecode(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        location = f"{Path(self._path).absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        with self._errors():
            if not create and not os.path.exists(self._path):
                raise sqlite3.OperationalError("no such file")
            directory = os.path.dirname(os.path.abspath(self._path))
            if os.path.isdir(directory) and not os.access(directory, os.W_OK | os.X_OK):
                raise sqlite3.OperationalError(
                    f"the directory {directory} is not writable; SQLite creates files beside the"
                    " store"
                )
            connection = sqlite3.connect(
                location,
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,  # This class begins transactions itself.
                check_same_thread=False,
            )
            try:
                self._open(connection, create)
            except BaseException:
                connection.close()
                raise
            self._files = self._find_files()
        self._connection = connection

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
        with self._use() as connection:
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
        with self._use() as connection:
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
        with self._use() as connection:
            count: int = connection.execute("SELECT count(*) FROM request").fetchone()[0]
        return count

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all digests and encodings, ordered by digest, without checking them; see `verify`.
        One request is in memory at a time. Concurrent changes may be visible."""
        return self._rows("digest", b"")

    def verify(self) -> list[Damage]:
        """Read the whole store, and return all damage: to the database, requests that are not
        canonical, and requests with another digest."""
        found = []
        try:
            with self._use() as connection:
                for (line,) in connection.execute("PRAGMA integrity_check").fetchall():
                    if line != "ok":
                        found.append(Damage(None, line))
            # In the order of rows, so that a damaged index or digest does not hide requests.
            for digest, encoding in self._rows("rowid", -(2**63)):
                message = _damage(digest, encoding)
                if message is not None:
                    found.append(Damage(digest, message))
        except StoreError as error:  # The database cannot be read.
            found.append(Damage(None, str(error)))
        return found

    def close(self) -> None:
        """Close the store, which cannot be used afterwards. Leaving the context also closes it."""
        with self._lock, self._errors():
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __enter__(self) -> RequestStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, connection: sqlite3.Connection, create: bool) -> None:
        """Prepare the connection, and create the store if `create` is true and it does not
        exist."""
        connection.text_factory = lambda text: text.decode(errors="backslashreplace")
        # SQLite first rolls back the changes of a killed process. A short file has no pages.
        if create and not _number(connection, "page_count") and not os.path.getsize(self._path):
            with _transaction(connection):
                if not _number(connection, "schema_version"):  # another process may be faster
                    connection.execute(CREATE)
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {VERSION}")
        if _number(connection, "application_id") != APPLICATION_ID:
            raise sqlite3.DatabaseError(
                "expected a request store, found another database or an empty file"
            )
        version = _number(connection, "user_version")
        if version != VERSION:
            raise sqlite3.DatabaseError(
                f"expected a store of version {VERSION}, found version {version}"
            )
        _write_ahead(connection)
        # FULL: after a power failure, the request of each returned digest is still stored. NORMAL
        # would only protect against killed processes.
        connection.execute("PRAGMA synchronous = FULL")
        _number(connection, "schema_version")  # Read, which opens the write-ahead log.

    def _put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        with self._use() as connection:
            with _transaction(connection):
                connection.executemany(PUT, rows)
            # SQLite would continue to use deleted files, and the requests would be lost.
            if self._find_files() != self._files:
                raise sqlite3.OperationalError(
                    "the store was deleted, moved or replaced while it was open; open it again"
                )

    def _find_files(self) -> list[tuple[int, int] | None]:
        """Return the inodes of the files of the database and its write-ahead log."""
        found: list[tuple[int, int] | None] = []
        for suffix in ("", "-wal", "-shm"):
            try:
                status = os.stat(self._path + suffix)
            except OSError:
                found.append(None)
            else:
                found.append((status.st_dev, status.st_ino))
        return found

    def _rows(self, column: str, last: bytes | int) -> Iterator[tuple[bytes, bytes]]:
        """Yield digests and encodings, ordered by a column, after `last`."""
        # One query per row, so that a suspended iterator holds no lock and no transaction.
        query = (
            f"SELECT {column}, CAST(digest AS BLOB), CAST(encoding AS BLOB) FROM request"
            f" WHERE {column} > ? ORDER BY {column} LIMIT 1"
        )
        while True:
            with self._use() as connection:
                row = connection.execute(query, (last,)).fetchone()
                if row is None:
                    return
                if row[0] <= last:
                    raise sqlite3.DatabaseError("the database is damaged: rows are out of order")
            last = row[0]
            yield row[1] or b"", row[2] or b""

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """Lock the connection for this thread, and yield it."""
        with self._lock, self._errors():
            if self._connection is None:
                raise ValueError(f"{self._path}: the store is closed")
            yield self._connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        # UnicodeDecodeError: SQLite quotes damaged bytes in its messages.
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise StoreError(f"{self._path}: {error}") from error


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


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    number: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return number


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Enable the write-ahead log, so that readers and a writer do not wait for each other."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait for other processes here.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    # IMMEDIATE: a transaction that becomes a writer later fails if another process has written.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
