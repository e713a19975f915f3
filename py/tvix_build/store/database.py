# SPDX-License-Identifier: MIT
"""An SQLite database in one file, which several processes and threads can share."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tvix_build._core.report import Error

BUSY_SECONDS = 60.0  # A large transaction of another process may take this long.


class StoreError(Error):
    """A file is not a store, has a newer version, is damaged, or cannot be read or written."""


@dataclass(frozen=True)
class Form:
    """What a database contains.

    Attributes:
        name: its name in errors, such as `request store`.
        application_id: SQLite's number of the application that the file belongs to.
        version: the version of the tables.
        tables: the statements that create the tables.
    """

    name: str
    application_id: int
    version: int
    tables: tuple[str, ...]


class _Connection:
    """A connection, which one thread at a time uses.

    Attributes:
        lock: held by that thread.
        closed: whether it cannot be used.
    """

    def __init__(self, location: str) -> None:
        self.lock = threading.Lock()
        self.closed = False
        self.connection = sqlite3.connect(
            location,
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,  # Database begins transactions itself.
            check_same_thread=False,
        )
        self.connection.text_factory = lambda text: text.decode(errors="backslashreplace")


class Database:
    """Opens a database, and creates it if the file does not exist or is empty and `create` is true.
    Writes are on disk when they return.

    Raises:
        StoreError: from the constructor and from all methods, if the file is not such a database,
            has a newer version, or is damaged, full, replaced or locked for longer than a minute.
    """

    def __init__(self, path: str | bytes | os.PathLike[str], form: Form, *, create: bool) -> None:
        self.path: str = os.fsdecode(path)
        self._form = form
        location = f"{Path(self.path).absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        with self._errors():
            if not create and not os.path.exists(self.path):
                raise sqlite3.OperationalError("no such file")
            directory = os.path.dirname(os.path.abspath(self.path))
            if os.path.isdir(directory) and not os.access(directory, os.W_OK | os.X_OK):
                raise sqlite3.OperationalError(
                    f"the directory {directory} is not writable; SQLite creates files beside the"
                    " store"
                )
            self._writer = _Connection(location)
            try:
                self._open(self._writer.connection, create)
                # Another one, so that reads do not wait for the disk as writes do.
                self._reader = _Connection(location)
                self._reader.connection.execute("PRAGMA query_only = TRUE")
            except BaseException:
                self._writer.connection.close()
                raise
            self._files = self._find_files()

    def close(self) -> None:
        """Close the database, which cannot be used afterwards."""
        with self._errors():
            for one in (self._reader, self._writer):
                with one.lock:
                    one.connection.close()
                    one.closed = True

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Lock the connection for reading, and yield it."""
        with self._use(self._reader) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Lock the connection for writing, and yield it in a transaction."""
        with self._use(self._writer) as connection:
            with _transaction(connection):
                yield connection
            # SQLite would continue to use deleted files, and the rows would be lost.
            if self._find_files() != self._files:
                raise sqlite3.OperationalError(
                    "the store was deleted, moved or replaced while it was open; open it again"
                )

    @contextmanager
    def _use(self, one: _Connection) -> Iterator[sqlite3.Connection]:
        with one.lock, self._errors():
            if one.closed:
                raise ValueError(f"{self.path}: the store is closed")
            yield one.connection

    def _open(self, connection: sqlite3.Connection, create: bool) -> None:
        """Prepare the connection, and create the tables if `create` is true and there are none."""
        form = self._form
        # SQLite first rolls back the changes of a killed process. A short file has no pages.
        if create and not _number(connection, "page_count") and not os.path.getsize(self.path):
            with _transaction(connection):
                if not _number(connection, "schema_version"):  # another process may be faster
                    for statement in form.tables:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {form.application_id}")
                    connection.execute(f"PRAGMA user_version = {form.version}")
        if _number(connection, "application_id") != form.application_id:
            raise sqlite3.DatabaseError(
                f"expected a {form.name}, found another database or an empty file"
            )
        version = _number(connection, "user_version")
        if version != form.version:
            raise sqlite3.DatabaseError(
                f"expected a store of version {form.version}, found version {version}"
            )
        _write_ahead(connection)
        # FULL: after a power failure, all that was written is still stored. NORMAL
        # would only protect against killed processes.
        connection.execute("PRAGMA synchronous = FULL")
        _number(connection, "schema_version")  # Read, which opens the write-ahead log.

    def _find_files(self) -> list[tuple[int, int] | None]:
        """Return the inodes of the files of the database and its write-ahead log."""
        found: list[tuple[int, int] | None] = []
        for suffix in ("", "-wal", "-shm"):
            try:
                status = os.stat(self.path + suffix)
            except OSError:
                found.append(None)
            else:
                found.append((status.st_dev, status.st_ino))
        return found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        # UnicodeDecodeError: SQLite quotes damaged bytes in its messages.
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise StoreError(f"{self.path}: {error}") from error


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
