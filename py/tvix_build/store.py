# SPDX-License-Identifier: MIT
"""A store of build requests of tvix.build.v1, by digest: what a Build that names its request by
hash refers to.

    >>> from tvix_build import build_request
    >>> from tvix_build.store import RequestStore
    >>> with RequestStore("requests.sqlite") as store:
    ...     digest = store.put(build_request(command_args=["/bin/true"]))
    ...     store.get(digest) == store.get(digest.hex()[:8])
    True

A store is one file, an SQLite database, beside which SQLite keeps two more while it is open.
Threads may share a RequestStore; processes open one each, and none uses one from before a fork.
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

SCHEMA = Schema.TVIX_BUILD_V1  # Nothing in a store says which one its requests are of.
APPLICATION_ID = int.from_bytes(b"tvix", "big")
VERSION = 1
BUSY_SECONDS = 60.0  # A large put_many of another process may take that long.
HEX_PREFIX = re.compile(f"[0-9a-fA-F]{{1,{2 * DIGEST_SIZE}}}")
# Not WITHOUT ROWID, which is slow where rows do not fit a page several times.
CREATE = f"""
CREATE TABLE request (
    digest BLOB NOT NULL PRIMARY KEY
        CHECK (typeof(digest) = 'blob' AND length(digest) = {DIGEST_SIZE}),
    encoding BLOB NOT NULL CHECK (typeof(encoding) = 'blob')
)
"""
# What is there is written anew only if it was damaged.
PUT = """
INSERT INTO request (digest, encoding) VALUES (?, ?)
ON CONFLICT (digest) DO UPDATE SET encoding = excluded.encoding
WHERE encoding IS NOT excluded.encoding
"""


class StoreError(Error):
    """A file that is no store of requests, or of a newer version, or damaged, or that cannot be
    read or written."""


class UnknownDigestError(Error, KeyError):
    """No request of the store has a digest that begins so."""

    def __str__(self) -> str:  # KeyError's is for keys.
        return str(self.args[0])


class AmbiguousDigestError(Error, KeyError):
    """Several requests of the store have a digest that begins so."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a store."""

    digest: bytes | None
    """The digest under which the damaged request is stored; None for damage to the database."""
    message: str
    """For people: what was expected and what was found."""


class RequestStore:
    """The canonical encodings of build requests of tvix.build.v1, by digest, in the order of the
    digests.

    What `put` and `put_many` have returned is on the disk, and survives a crash of the process and
    of the machine; what they have not is there wholly or not at all. Any number of processes and
    threads may use a store at once; one that writes makes other writers wait for up to a minute.
    If its files are deleted, moved or replaced while it is open, a write fails.

    Args:
        path: the file. Its directory must be writable, for readers too, as SQLite keeps files
            beside it.
        create: whether to make a store where there is no file, or an empty one.

    Raises:
        StoreError: here and from every method, if the file is no store or of a newer version, or
            if it is damaged, full, replaced or locked for longer than a minute.
    """

    def __init__(self, path: str | bytes | os.PathLike[str], *, create: bool = True) -> None:
        self._path = os.fsdecode(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        location = f"{Path(self._path).absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        with self._errors():
            if not create and not os.path.exists(self._path):
                raise sqlite3.OperationalError("expected a store of requests, found no such file")
            directory = os.path.dirname(os.path.abspath(self._path))
            if os.path.isdir(directory) and not os.access(directory, os.W_OK | os.X_OK):
                raise sqlite3.OperationalError(
                    "expected a directory that this process may write, as SQLite keeps files beside"
                    f" the store, found {directory}"
                )
            connection = sqlite3.connect(
                location,
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,  # Transactions are begun here, not by the module.
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
        """Store a request; nothing changes if it is there already.

        Args:
            request: a BuildRequest of tvix.build.v1 or the bytes of one.

        Returns:
            Its digest, 32 bytes.

        Raises:
            ValidationError: if it has no canonical encoding.
            TypeError: if it is neither bytes-like nor a BuildRequest of tvix.build.v1.
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
        """Store many requests, all of them or, on any error, none. Arguments as for
        `tvix_build.canonicalize_batch`.

        Returns:
            Their digests, in order, 32 bytes each.

        Raises:
            ValidationError: for the first one without a canonical encoding; its `index` says which.
            TypeError: if one is neither bytes-like nor a BuildRequest of tvix.build.v1.
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
        """The canonical encoding of a request, checked against its digest.

        Args:
            digest: 32 bytes, or hex digits: 64 of them or as many of the first as no other request
                of the store shares.

        Raises:
            UnknownDigestError: if there is no such request.
            AmbiguousDigestError: if there are several.
            ValueError: if that is no digest.
            StoreError: if what is stored has another digest.
        """
        with self._use() as connection:
            rows = connection.execute(
                "SELECT digest, CAST(encoding AS BLOB) FROM request"
                " WHERE digest BETWEEN ? AND ? LIMIT 2",
                _range(digest),
            ).fetchall()
        shown = digest if isinstance(digest, str) else digest.hex()
        if not rows:
            raise UnknownDigestError(f"{self._path}: expected a request {shown}, found none")
        if len(rows) > 1:
            several = " and ".join(row[0].hex() for row in rows)
            raise AmbiguousDigestError(
                f"{self._path}: expected one request {shown}…, found several: {several} among them"
            )
        key, encoding = rows[0]
        found = blake3_many([encoding]).tobytes()
        if found != key:
            raise StoreError(
                f"{self._path}: expected a request with the digest {key.hex()}, found damage: "
                f"what is stored has {found.hex()}"
            )
        return bytes(encoding)

    def has(self, digest: bytes | str) -> bool:
        """Whether there is a request with a digest, or one or more whose digest begins so.

        Args:
            digest: 32 bytes, or 1 to 64 hex digits.

        Raises:
            ValueError: if that is no digest.
        """
        with self._use() as connection:
            row = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM request WHERE digest BETWEEN ? AND ?)", _range(digest)
            ).fetchone()
        return bool(row[0])

    def __contains__(self, digest: object) -> bool:
        """As `has`; false for an object that cannot be a digest, of another type or length."""
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
        """All digests and canonical encodings, in the order of the digests, as they are stored:
        `verify` checks them. One is in memory at a time; of what is put or lost meanwhile, some may
        be seen."""
        return self._rows("digest", b"")

    def verify(self) -> list[Damage]:
        """All that is wrong: damage to the database, and requests that are not canonical or have
        another digest than that under which they are stored. Reads the whole store."""
        found = []
        try:
            with self._use() as connection:
                for (line,) in connection.execute("PRAGMA integrity_check").fetchall():
                    if line != "ok":
                        found.append(Damage(None, line))
            # By row: a damaged index, or a digest of another type, hides none.
            for digest, encoding in self._rows("rowid", -(2**63)):
                message = _damage(digest, encoding)
                if message is not None:
                    found.append(Damage(digest, message))
        except StoreError as error:  # The database is so damaged that there is nothing to read.
            found.append(Damage(None, str(error)))
        return found

    def close(self) -> None:
        """Close the file; a closed store can only be closed. Leaving the context does so, too."""
        with self._lock, self._errors():
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __enter__(self) -> RequestStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, connection: sqlite3.Connection, create: bool) -> None:
        """Make the connection ready, and the store if there is none."""
        connection.text_factory = lambda text: text.decode(errors="backslashreplace")
        # Asking SQLite first undoes what a killed process left; to it a short file has no page.
        if create and not _number(connection, "page_count") and not os.path.getsize(self._path):
            with _transaction(connection):
                if not _number(connection, "schema_version"):  # Nobody else was faster.
                    connection.execute(CREATE)
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {VERSION}")
        if _number(connection, "application_id") != APPLICATION_ID:
            raise sqlite3.DatabaseError(
                "expected a store of requests, found another database or nothing"
            )
        version = _number(connection, "user_version")
        if version != VERSION:
            raise sqlite3.DatabaseError(
                f"expected a store of version {VERSION}, found version {version}"
            )
        _write_ahead(connection)
        # FULL: a digest that was handed out names a request even after the power failed. NORMAL
        # would keep what a killed process wrote, but not that.
        connection.execute("PRAGMA synchronous = FULL")
        _number(connection, "schema_version")  # A read, which opens the write-ahead log.

    def _put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        with self._use() as connection:
            with _transaction(connection):
                connection.executemany(PUT, rows)
            # SQLite goes on with files that have no name any more, whose contents nobody finds.
            if self._find_files() != self._files:
                raise sqlite3.OperationalError(
                    "expected the files that were opened, found others or none: the store was"
                    " deleted, moved or replaced; open it again"
                )

    def _find_files(self) -> list[tuple[int, int] | None]:
        """Which files lie at the paths of the database and of its write-ahead log."""
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
        """Digests and encodings, in the order of a column, from behind `last`."""
        # A query a row: an iterator that is left alone keeps neither lock nor transaction.
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
                    raise sqlite3.DatabaseError("expected rows in order, found a damaged database")
            last = row[0]
            yield row[1] or b"", row[2] or b""

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone."""
        with self._lock, self._errors():
            if self._connection is None:
                raise ValueError(f"{self._path}: expected an open store, found it closed")
            yield self._connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        # UnicodeDecodeError: SQLite quotes damaged bytes in its reasons.
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise StoreError(f"{self._path}: {error}") from error


def _range(digest: bytes | str) -> tuple[bytes, bytes]:
    """The first and the last digest that are or begin so."""
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
    """What is wrong with a row."""
    report: Report = check(encoding, kind=Kind.BUILD_REQUEST, schema=SCHEMA)
    if report.digest is None:
        return f"expected a canonical request, found an invalid one: {refusal(report)}"
    if not report.canonical:
        return "expected a canonical request, found one that is encoded otherwise"
    if report.digest != digest:
        return f"expected a request with this digest, found one with {report.digest.hex()}"
    return None


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    number: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return number


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have SQLite write ahead, so that readers and a writer do not wait for each other."""
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # Here SQLite itself does not wait for other processes.
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    # Begun as a writer: a reader that becomes one fails if another was faster.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
