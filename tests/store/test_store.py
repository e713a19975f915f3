# SPDX-License-Identifier: MIT
"""`tvix_build.store` against protobuf, PyPI's blake3 and plain sqlite3; under many writers and
kills.

TVIX_BUILD_KILL_TRIALS is how many kills, 20 if unset.
"""

from __future__ import annotations

import doctest
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

import tvix_build.store
from cli_support import encoded, environment, invalid_request, request, unsorted_request
from snix.build.protos import build_pb2 as snix_build_pb2
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build.store import AmbiguousDigestError, RequestStore, StoreError, UnknownDigestError
from waiting import LIMIT, wait_until

KILLS = int(os.environ.get("TVIX_BUILD_KILL_TRIALS", "20"))

# Puts requests FIRST, FIRST + STEP, ... and prints the number of each that is stored. SIZE of them
# are put at once.
WRITER = """
import sys
from cli_support import request
from tvix_build.store import RequestStore
path, first, step, end, size = sys.argv[1], *map(int, sys.argv[2:])
with RequestStore(path) as store:
    for number in range(first, end, step * size):
        numbers = range(number, min(number + step * size, end), step)
        store.put_many([request(number) for number in numbers])
        for number in numbers:
            print(number, flush=True)
"""


def key(message: BuildRequest) -> bytes:
    """The digest of a canonical request."""
    return blake3(encoded(message)).digest()


def sql(path: Path, *statements: str) -> None:
    """Change a store behind its back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        for statement in statements:
            connection.execute(statement)


def rows(path: Path) -> list[tuple[bytes, bytes]]:
    """What plain sqlite3 finds in a store."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT digest, encoding FROM request ORDER BY digest").fetchall()


def writer(*arguments: object) -> subprocess.Popen[bytes]:
    """Start a process that writes; arguments are those of WRITER."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that is not there yet, whose name needs care in a URI."""
    return tmp_path / "a?b#c%20 é.store"


def test_what_is_put_is_found(path: Path) -> None:
    messages = [request(number) for number in range(50)]
    with RequestStore(path) as store:
        assert len(store) == 0
        assert list(store) == []
        assert [store.put(message) for message in messages[:5]] == list(map(key, messages[:5]))
        assert store.put_many(messages[3:]) == list(map(key, messages[3:]))
        assert len(store) == 50
        for message in messages:
            assert store.get(key(message)) == store.get(key(message).hex()) == encoded(message)
            assert store.get(key(message).hex().upper()) == encoded(message)
            assert key(message) in store
            assert store.has(key(message).hex())
        assert store.verify() == []
        expected = sorted((key(message), encoded(message)) for message in messages)
        assert list(store) == expected
    assert os.listdir(path.parent) == [path.name]
    assert rows(path) == expected


def test_put_stores_the_canonical_encoding(path: Path) -> None:
    message = unsorted_request()
    canonical = request(1, outputs=["a", "b"])
    with RequestStore(path) as store:
        assert store.put(message) == key(canonical)
        assert store.put(bytearray(encoded(message))) == key(canonical)
        assert store.put(memoryview(encoded(canonical))) == key(canonical)
        data = encoded(message)
        assert store.put_many(data, offsets=[0, len(data)]) == [key(canonical)]
        assert store.put_many([]) == []
        assert list(store) == [(key(canonical), encoded(canonical))]


def test_put_refuses_what_has_no_canonical_encoding(path: Path) -> None:
    with RequestStore(path) as store:
        store.put(request(0))
        with pytest.raises(tvix_build.ValidationError) as caught:
            store.put(invalid_request())
        assert {violation.path for violation in caught.value.violations} == {
            "command_args",
            "outputs[0]",
        }
        with pytest.raises(tvix_build.ValidationError) as caught:
            store.put_many([request(1), request(2), invalid_request()])
        assert caught.value.index == 2
        with pytest.raises(TypeError, match="found a message tvix"):
            store.put(Build())
        with pytest.raises(TypeError):
            store.put("text")  # type: ignore[arg-type]
        assert [digest for digest, _ in store] == [key(request(0))]


def test_an_error_in_the_midst_of_many_puts_none(path: Path) -> None:
    messages = [request(number) for number in range(3)]
    RequestStore(path).close()
    sql(
        path,
        "CREATE TRIGGER refuse BEFORE INSERT ON request"
        f" WHEN NEW.digest = x'{key(messages[1]).hex()}'"
        " BEGIN SELECT RAISE(ABORT, 'no space'); END",
    )
    with RequestStore(path) as store:
        with pytest.raises(StoreError, match="no space"):
            store.put_many(messages)
        assert rows(path) == []
        store.put(messages[0])
        assert rows(path) == [(key(messages[0]), encoded(messages[0]))]


def test_put_refuses_other_schemas(path: Path) -> None:
    later = snix_build_pb2.BuildRequest(command_args=["a"])
    expected = "expected tvix.build.v1.BuildRequest, found a message snix.build.v1.BuildRequest"
    with RequestStore(path) as store:
        with pytest.raises(TypeError, match=expected):
            store.put(later)
        with pytest.raises(TypeError, match=f"message 0: {expected}"):
            store.put_many([later])
        with pytest.raises(TypeError, match=f"message 1: {expected}"):
            store.put_many([request(0), later])
        with pytest.raises(tvix_build.ValidationError):
            store.put(later.SerializeToString())
        assert list(store) == []


def test_put_writes_nothing_that_is_there(path: Path) -> None:
    with RequestStore(path) as store:
        store.put(request(0))
        before = store.get(key(request(0)))
        with closing(sqlite3.connect(path)) as observer:
            # Grows with every commit of another connection that wrote.
            version = observer.execute("PRAGMA data_version").fetchone()
            assert store.put(request(0)) == key(request(0))
            assert store.put_many([request(0)] * 3) == [key(request(0))] * 3
            assert observer.execute("PRAGMA data_version").fetchone() == version
            store.put(request(1))
            assert observer.execute("PRAGMA data_version").fetchone() != version
        assert store.get(key(request(0))) == before


def test_prefixes_against_plain_sqlite(path: Path) -> None:
    messages = [request(number) for number in range(300)]
    with RequestStore(path) as store:
        store.put_many(messages)
        hexes = [digest.hex() for digest, _ in rows(path)]
        prefixes = {name[:size] for name in hexes for size in range(1, 7)} | {"0", "fff", "00000"}
        counts = set()
        with closing(sqlite3.connect(path)) as plain:
            for prefix in sorted(prefixes):
                found = plain.execute(
                    "SELECT encoding FROM request WHERE lower(hex(digest)) GLOB ?", (prefix + "*",)
                ).fetchall()
                counts.add(min(len(found), 2))
                assert (prefix in store) == bool(found)
                if len(found) == 1:
                    assert store.get(prefix) == found[0][0]
                else:
                    error = AmbiguousDigestError if found else UnknownDigestError
                    with pytest.raises(error, match=f"(digest|begin with) {prefix}") as caught:
                        store.get(prefix)
                    assert isinstance(caught.value, KeyError)
                    assert isinstance(caught.value, tvix_build.Error)
        assert counts == {0, 1, 2}


def test_the_last_digest_has_prefixes(path: Path) -> None:
    with RequestStore(path):
        pass
    sql(path, f"INSERT INTO request VALUES (x'{'ff' * 32}', x'00')")
    with RequestStore(path) as store:
        assert all("f" * size in store for size in range(1, 65))
        assert [digest for digest, _ in store] == [b"\xff" * 32]


@pytest.mark.parametrize("digest", ["", "g", "0x1", "a" * 65, "a\n", "é", b"", b"a", bytes(33)])
def test_what_is_no_digest(path: Path, digest: str | bytes) -> None:
    with RequestStore(path) as store:
        with pytest.raises(ValueError, match="expected "):
            store.get(digest)
        with pytest.raises(ValueError, match="expected "):
            store.has(digest)
        with pytest.raises(TypeError):
            store.get(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [b"", b"short", bytes(31), bytes(33), "", "g", "f" * 65, bytearray(32), None, 5, (), []],
)
def test_nothing_else_is_in_a_store(tmp_path: Path, other: object) -> None:
    with RequestStore(tmp_path / "store") as store:
        store.put(request(0))
        assert other not in store
    with pytest.raises(ValueError, match="the store is closed"):
        bytes(32) in store  # noqa: B015


def test_unknown_digest_says_so(path: Path) -> None:
    with (
        RequestStore(path) as store,
        pytest.raises(UnknownDigestError) as caught,
    ):
        store.get(bytes(32))
    assert str(caught.value) == f"{path}: no request with the digest {'00' * 32}"


def test_iteration_goes_on_while_others_put(path: Path) -> None:
    with RequestStore(path) as store:
        store.put_many([request(number) for number in range(10)])
        seen = []
        for number, (digest, _) in enumerate(store):
            seen.append(digest)
            store.put(request(100 + number))
            if len(seen) == 15:
                break
        assert seen == sorted(set(seen))
        first = {key(request(number)) for number in range(10)}
        assert {digest for digest in first if digest <= seen[-1]} <= set(seen)


def test_a_closed_store(path: Path) -> None:
    store = RequestStore(path)
    digest = store.put(request())
    iterator = iter(store)
    store.close()
    store.close()
    for call in (store.verify, store.__len__, lambda: store.get(digest), lambda: next(iterator)):
        with pytest.raises(ValueError, match="the store is closed"):
            call()
    with pytest.raises(ValueError, match="closed"):
        store.put(request())


# ---- files that are no stores


def test_nothing_is_made_where_it_is_not_wanted(path: Path) -> None:
    for content in (None, b""):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(StoreError, match=r"no such file|expected a request store, found an"):
            RequestStore(path, create=False)
        assert path.exists() == (content is not None)
    RequestStore(path).close()
    RequestStore(path, create=False).close()


@pytest.mark.parametrize("content", [b"a", b"text\n" * 1000, bytes(8192), b"SQLite format 3\0"])
def test_foreign_files_stay_as_they_are(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match="b#c"):
        RequestStore(path)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("statement", ["CREATE TABLE t (a)", "PRAGMA user_version = 1"])
def test_foreign_databases_stay_as_they_are(path: Path, statement: str) -> None:
    sql(path, statement)
    content = path.read_bytes()
    with pytest.raises(StoreError, match="expected a request store, found another database"):
        RequestStore(path)
    assert path.read_bytes() == content


def test_a_newer_version(path: Path) -> None:
    RequestStore(path).close()
    sql(path, "PRAGMA user_version = 2")
    with pytest.raises(StoreError, match="expected a store of version 1, found version 2"):
        RequestStore(path)


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing" / "store"):
        with pytest.raises(StoreError, match="unable to open"):
            RequestStore(place)


def test_names_that_are_bytes(tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"\xff:memory:")
    with RequestStore(name) as store:
        digest = store.put(request())
    assert os.path.getsize(name)
    with RequestStore(os.fsdecode(name), create=False) as store:
        assert digest in store


# ---- damage


def test_damaged_rows(path: Path) -> None:
    messages = [request(number) for number in range(8)]
    with RequestStore(path) as store:
        digests = store.put_many(messages)
    broken = encoded(unsorted_request())
    invalid = encoded(invalid_request())
    merged = encoded(messages[7]) + encoded(BuildRequest(constraints={}))
    at = [f"WHERE digest = x'{digest.hex()}'" for digest in digests]
    sql(
        path,
        f"UPDATE request SET encoding = x'{broken.hex()}' {at[0]}",
        f"UPDATE request SET encoding = x'{invalid.hex()}' {at[1]}",
        f"UPDATE request SET encoding = x'{encoded(messages[3]).hex()}' {at[2]}",
        f"UPDATE request SET encoding = x'' {at[4]}",
        f"UPDATE request SET digest = x'{'ab' * 32}' {at[5]}",
        f"UPDATE request SET digest = x'{'cd' * 31}' {at[6]}",
        f"UPDATE request SET encoding = x'{merged.hex()}' {at[7]}",
    )
    with RequestStore(path) as store:
        found = [damage for damage in store.verify() if damage.digest is not None]
        reasons = {
            digests[0]: "another encoding",
            digests[1]: "command_args",
            digests[2]: digests[3].hex(),
            digests[4]: "command_args",
            b"\xab" * 32: digests[5].hex(),
            b"\xcd" * 31: digests[6].hex(),
            digests[7]: "another encoding",
        }
        assert {damage.digest for damage in found} == set(reasons)
        for damage in found:
            assert damage.digest is not None
            assert "expected" in damage.message
            assert reasons[damage.digest] in damage.message
        for i in (0, 1, 2, 4, 7):
            with pytest.raises(StoreError, match=f"{digests[i].hex()} is damaged"):
                store.get(digests[i])
        assert store.get(digests[3]) == encoded(messages[3])
        assert store.put_many(messages) == digests
        assert [store.get(digest) for digest in digests] == list(map(encoded, messages))


def test_rows_of_other_types(path: Path) -> None:
    with RequestStore(path) as store:
        (digest, _) = store.put_many([request(0), request(1)])
    sql(
        path,
        f"UPDATE request SET encoding = 'text' WHERE digest = x'{digest.hex()}'",
        "INSERT INTO request VALUES ('text', 1)",
    )
    with RequestStore(path) as store:
        damages = store.verify()
        assert {digest, b"text"} <= {damage.digest for damage in damages}
        assert any("CHECK" in damage.message for damage in damages if damage.digest is None)
        with pytest.raises(StoreError, match="is damaged"):
            store.get(digest)


def test_rows_that_the_index_lacks(path: Path) -> None:
    with RequestStore(path) as store:
        digests = store.put_many([request(number) for number in range(3)])
    sql(
        path,
        "CREATE TABLE other (digest BLOB NOT NULL PRIMARY KEY)",
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master"
        " WHERE name = 'sqlite_autoindex_other_1') WHERE name = 'sqlite_autoindex_request_1'",
    )
    with RequestStore(path) as store:
        assert digests[0] not in store
        damages = store.verify()
        assert len(damages) >= 3
        assert {damage.digest for damage in damages} == {None}


@pytest.mark.slow
def test_random_damage_is_a_clear_error(path: Path) -> None:
    messages = [request(number) for number in range(100)]
    with RequestStore(path) as store:
        store.put_many(messages)
    good = path.read_bytes()
    expected = set(rows(path))
    rng = random.Random(1)
    noticed = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.choice((1, 4, 100))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.1:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            with RequestStore(path, create=False) as store:
                clean = store.verify() == []
                if clean:
                    # What hit no byte in use.
                    assert set(store) == expected
                noticed += not clean
                for message in messages:
                    try:
                        assert store.get(key(message)) == encoded(message)
                    except UnknownDigestError:
                        assert not clean
        except StoreError:
            noticed += 1
    assert noticed > 50


# ---- many at once


def test_threads_share_a_store(path: Path) -> None:
    messages = [request(number) for number in range(60)]
    with RequestStore(path) as store:
        failures: list[BaseException] = []

        def work(first: int) -> None:
            try:
                for message in messages[first:] + messages[:first]:
                    assert store.put(message) == key(message)
                    assert store.get(key(message)) == encoded(message)
                for digest, encoding in store:
                    assert blake3(encoding).digest() == digest
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 20, 40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(store) == 60
        assert store.verify() == []


@pytest.mark.slow
def test_processes_write_at_once(path: Path) -> None:
    # They race to make the store, too; each number is put by two of them.
    writers = [writer(path, first, 2, 60, size) for first in (0, 1) for size in (1, 7)]
    for process in writers:
        process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert rows(path) == sorted(
        (key(message), encoded(message)) for message in map(request, range(60))
    )


def test_a_writer_waits_for_another(path: Path) -> None:
    RequestStore(path).close()
    waits = threading.Event()
    with (
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other,
        RequestStore(path) as store,
        ThreadPoolExecutor() as threads,
    ):

        def commit() -> None:
            assert waits.wait(LIMIT)
            other.execute("COMMIT")

        other.execute("BEGIN IMMEDIATE")
        assert len(store) == 0  # Readers do not wait.
        store._database._writer.connection.set_trace_callback(lambda statement: waits.set())
        release = threads.submit(commit)
        assert store.put(request()) == key(request())
        release.result(LIMIT)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_killed_writers(path: Path) -> None:
    acknowledged: set[int] = set()
    rng = random.Random(2)
    for trial in range(KILLS):
        # Some die while they make the store, most while they put.
        if trial % 5 == 0:
            path.unlink(missing_ok=True)
            for suffix in ("-wal", "-shm", "-journal"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            acknowledged.clear()
        first = 1000 * trial
        process = writer(path, first, 1, first + 1000, rng.choice((1, 1, 30)))
        assert process.stdout
        seen = []
        for _ in range(rng.choice((0, 0, 1, 3, 40))):
            seen.append(int(process.stdout.readline()))
        if not seen:
            wait_until(lambda: path.exists() or process.poll() is not None)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        # A line that was cut off is no acknowledgement.
        seen += [int(line) for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
        acknowledged.update(seen)
        with RequestStore(path) as store:
            assert store.verify() == []
            for number in acknowledged:
                assert store.get(key(request(number))) == encoded(request(number))
            assert store.put(request(first + 999)) in store
            acknowledged.add(first + 999)


def test_docstring_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(tvix_build.store)
    assert result == doctest.TestResults(failed=0, attempted=3)
    assert (tmp_path / "requests.sqlite").exists()


SUFFIXES = ("", "-wal", "-shm")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("way", ["delete", "move", "replace"])
def test_files_that_are_not_the_open_ones(tmp_path: Path, suffix: str, way: str) -> None:
    path = tmp_path / "requests.sqlite"
    with RequestStore(path) as store:
        store.put(request(0))
        file = path.with_name(path.name + suffix)
        if way == "delete":
            file.unlink()
        elif way == "move":
            file.rename(tmp_path / "elsewhere")
        else:
            copy = tmp_path / "copy"
            copy.write_bytes(file.read_bytes())
            copy.replace(file)
        for put in (lambda: store.put(request(1)), lambda: store.put_many([request(2)])):
            with pytest.raises(StoreError, match="deleted, moved or replaced while it was open"):
                put()


def test_other_processes_do_not_replace_the_files(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    with RequestStore(path) as store:
        for number in range(0, 40, 2):
            store.put(request(number))
            with RequestStore(path) as other:
                other.put(request(number + 1))
            sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        assert len(store) == 40


def test_the_directory_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "requests.sqlite"
    RequestStore(path).close()
    # Root may write everywhere, so that permissions alone show nothing.
    monkeypatch.setattr(os, "access", lambda name, mode: name != str(tmp_path))
    for create in (True, False):
        with pytest.raises(StoreError, match="is not writable"):
            RequestStore(path, create=create)
