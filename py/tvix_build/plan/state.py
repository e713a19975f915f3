# SPDX-License-Identifier: MIT
"""The state of plans and their runs, in an SQLite file, and the builds that they made."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tvix_build._core.blake3 import blake3_many
from tvix_build._core.engine import DIGEST_SIZE
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import Error
from tvix_build.plan.graph import check_plan
from tvix_build.plan.locks import hold_lock
from tvix_build.plan.wire import (
    Ref,
    Step,
    make_plan,
    read_outputs,
    read_refs,
    read_roots,
    read_step,
)
from tvix_build.store import RequestStore
from tvix_build.store.database import Database, Form

if TYPE_CHECKING:
    from tvix.castore.protos.castore_pb2 import Node

_TABLES = (
    # stored: when, in seconds since 1970.
    "CREATE TABLE step (digest BLOB NOT NULL PRIMARY KEY, stored INTEGER NOT NULL,"
    " encoding BLOB NOT NULL)",
    # The digests of steps and roots, one after the other.
    "CREATE TABLE plan (digest BLOB NOT NULL PRIMARY KEY, steps BLOB NOT NULL, roots BLOB NOT NULL)"
    " WITHOUT ROWID",
    "CREATE TABLE run (id INTEGER PRIMARY KEY, plan BLOB NOT NULL, started TEXT NOT NULL,"
    " finished TEXT)",
    "CREATE TABLE result (run INTEGER NOT NULL, step BLOB NOT NULL, status TEXT NOT NULL,"
    " request BLOB, builder TEXT, started TEXT, finished TEXT, reason TEXT, cause BLOB,"
    " PRIMARY KEY (run, step)) WITHOUT ROWID",
)
_FORM = Form("state of plans", int.from_bytes(b"tvxp", "big"), 1, _TABLES)
_STEPS_AT_ONCE = 500  # Older SQLite allows 999 parameters.
_UNUSED_SECONDS = 24 * 60 * 60
"""How long a step is kept that no plan has: a client may be sending the steps of its plan."""
_LAST_RUN = "SELECT * FROM run WHERE plan = ? ORDER BY id DESC LIMIT 1"
_PUT_RESULT = "INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


class UnknownPlanError(Error, KeyError):
    """A state has no plan with this digest."""

    def __str__(self) -> str:  # KeyError.__str__ shows the repr.
        return str(self.args[0])


class UnknownStepError(Error):
    """A state has no step with this digest."""


class PlanRunningError(Error):
    """Another call, perhaps in another process, runs the plan."""


class Status(str, Enum):
    """The outcome of a step. Members are strings."""

    BUILT = "built"
    """A builder built it in this run."""
    CACHED = "cached"
    """The build was stored before, or another step of the run has the same request."""
    FAILED = "failed"
    """The build failed."""
    SKIPPED = "skipped"
    """A step that it needs failed, or the run ended after the first failure."""


@dataclass(frozen=True)
class StepResult:
    """The outcome of a step.

    Attributes:
        step: the digest of the step, 32 bytes.
        status: the outcome.
        request: the digest of the request with all inputs, 32 bytes; None if the step was skipped.
        builder: the address of the builder, or None.
        started: the start of the build in UTC, or None.
        finished: its end.
        reason: why it failed; None if it did not.
        cause: the digest of the failed step because of which this one was skipped; or None.
    """

    step: bytes
    status: Status
    request: bytes | None = None
    builder: str | None = None
    started: datetime | None = None
    finished: datetime | None = None
    reason: str | None = None
    cause: bytes | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the step has outputs."""
        return self.status in (Status.BUILT, Status.CACHED)


class Run(NamedTuple):
    """A run of a plan."""

    number: int
    """The number of the run, unique in the state."""
    plan: bytes
    """The digest of the plan."""
    started: datetime
    """The start of the run, in UTC."""
    finished: datetime | None
    """Its end; None if it is not finished."""


class PlanState:
    """Stores plans, the outcomes of their steps, and builds, in a directory.

    Several processes and threads may use a state at the same time, but only one call at a time runs
    a plan. What a method has stored when it returns survives a crash of the process or of the
    machine.

    Args:
        path: the directory, which is created if it does not exist.
        builds: the store of builds; by default, a file in the directory.

    Attributes:
        builds: the store of builds, which several states may share.

    Raises:
        StoreError: from the constructor and from all methods, if a file cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, builds: RequestStore | None = None) -> None:
        self._directory = Path(path)
        self._directory.mkdir(exist_ok=True)
        self._database = Database(self._directory / "plans.sqlite", _FORM, create=True)
        self._own_builds = builds is None
        if builds is None:
            builds = RequestStore(self._directory / "builds.sqlite")
        self.builds: RequestStore = builds

    def close(self) -> None:
        """Close the state, which cannot be used afterwards. Leaving the context also closes it."""
        self._database.close()
        if self._own_builds:
            self.builds.close()

    def __enter__(self) -> PlanState:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put_plan(self, plan: BytesLike) -> bytes:
        """Store a plan, and return its digest.

        Args:
            plan: an encoded plan. Its canonical encoding is stored.

        Raises:
            ValidationError: if it is invalid.
        """
        encoding, found = check_plan(plan)
        digest = blake3_many([encoding]).tobytes()
        steps = (
            (step, encoding[begin:end])
            for step, begin, end in zip(
                _split(found.digests), found.begins, found.ends, strict=True
            )
        )
        # The plan comes first, so that no deletion of another one deletes its steps.
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO plan VALUES (?, ?, ?)",
                (digest, found.digests, b"".join(read_roots(encoding))),
            )
        # Many transactions, because the write-ahead log is as large as the largest one.
        while some := list(islice(steps, _STEPS_AT_ONCE)):
            self.put_steps(some)
        return digest

    def delete_plan(self, plan: bytes) -> int:
        """Delete a plan, its runs and their outcomes, the steps that no other plan has, and those
        that `delete_unused_steps` deletes. Return the number of these steps. Builds remain.

        Raises:
            UnknownPlanError: if the state has no such plan.
            PlanRunningError: if another call runs the plan.
        """
        with self.lock(plan):
            steps = set(self._digests(plan, "steps"))
            with self._database.write() as connection:
                connection.execute(
                    "DELETE FROM result WHERE run IN (SELECT id FROM run WHERE plan = ?)", (plan,)
                )
                connection.execute("DELETE FROM run WHERE plan = ?", (plan,))
                connection.execute("DELETE FROM plan WHERE digest = ?", (plan,))
                return _delete_unused(connection, steps)

    def delete_unused_steps(self) -> int:
        """Delete the steps that no plan has and that were stored more than a day ago, such as those
        of a plan that was sent and never started. Return their number."""
        with self._database.write() as connection:
            return _delete_unused(connection, set())

    def put_steps(self, steps: Iterable[tuple[bytes, bytes | memoryview]]) -> int:
        """Store the digests and canonical encodings of valid steps, in one transaction, and return
        how many of them were new."""
        with self._database.write() as connection:
            before = connection.total_changes
            now = int(time.time())
            rows = ((digest, now, encoding) for digest, encoding in steps)
            connection.executemany("INSERT OR IGNORE INTO step VALUES (?, ?, ?)", rows)
            return connection.total_changes - before

    def missing_steps(self, digests: Iterable[bytes]) -> list[bytes]:
        """Return those of the digests for which there is no step."""
        wanted = list(digests)
        stored = {digest for (digest,) in self._select_steps("digest", wanted)}
        return [one for one in wanted if one not in stored]

    def collect_plan(self, roots: Iterable[bytes]) -> bytes:
        """Return the canonical encoding of the plan of stored steps with these roots.

        Raises:
            UnknownStepError: if a step is not stored.
        """
        wanted = sorted(set(roots))
        steps: dict[bytes, bytes] = {}
        waiting = set(wanted)
        while waiting:
            found = dict(self._encoded_steps([*waiting]))
            steps.update(found)
            waiting = {ref.step for step in found.values() for ref in read_refs(step)}
            waiting -= steps.keys()
        return b"".join(make_plan((step for _, step in sorted(steps.items())), wanted))

    def step(self, digest: bytes) -> Step:
        """Return a step.

        Raises:
            UnknownStepError: if it is not stored.
        """
        ((_, encoding),) = self._encoded_steps([digest])
        return read_step(encoding)

    def _encoded_steps(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the digests and encodings of steps.

        Raises:
            UnknownStepError: if one is not stored.
        """
        missing = set(digests)
        columns = "digest, CAST(encoding AS BLOB)"
        for digest, encoding in self._select_steps(columns, digests):
            missing.remove(digest)
            yield digest, encoding
        for digest in missing:
            raise UnknownStepError(f"{self._database.path}: no step with the digest {digest.hex()}")

    def _select_steps(self, columns: str, digests: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        """Yield columns of those of the steps that are stored."""
        for first in range(0, len(digests), _STEPS_AT_ONCE):
            some = digests[first : first + _STEPS_AT_ONCE]
            places = ",".join("?" * len(some))
            with self._database.read() as connection:
                rows = connection.execute(
                    f"SELECT {columns} FROM step WHERE digest IN ({places})", some
                ).fetchall()
            yield from rows

    def step_name(self, digest: bytes) -> str:
        """Return the name of the first output of a step, or its digest if it has no output."""
        step = self.step(digest)
        names = read_outputs(step.request, step.schema)
        return names[0].decode(errors="backslashreplace") if names else digest.hex()

    def plan_steps(self, plan: bytes) -> list[tuple[bytes, tuple[Ref, ...]]]:
        """Return the digests of the steps of a plan, each with its refs.

        Raises:
            UnknownPlanError: if the state has no such plan.
        """
        digests = self._digests(plan, "steps")
        refs = {digest: read_refs(step) for digest, step in self._encoded_steps(digests)}
        return [(digest, refs[digest]) for digest in digests]

    def count_steps(self, plan: bytes) -> int:
        """Return the number of steps of a plan.

        Raises:
            UnknownPlanError: if the state has no such plan.
        """
        return len(self._digests(plan, "steps"))

    def roots(self, plan: bytes) -> list[bytes]:
        """Return the digests of the roots of a plan.

        Raises:
            UnknownPlanError: if the state has no such plan.
        """
        return self._digests(plan, "roots")

    def _digests(self, plan: bytes, column: str) -> list[bytes]:
        with self._database.read() as connection:
            found = _digests_of(connection, plan, column)
        if not found:
            raise UnknownPlanError(f"{self._database.path}: no plan with the digest {plan.hex()}")
        return found

    @contextmanager
    def lock(self, plan: bytes) -> Iterator[None]:
        """Hold the lock of a plan, which ends with the process.

        Raises:
            PlanRunningError: if another call holds it.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(hold_lock(self._directory / f"{plan.hex()}.lock"))
            except BlockingIOError:
                raise PlanRunningError(f"the plan {plan.hex()} is running already") from None
            yield

    def start_run(self, plan: bytes) -> Run:
        """Return the last run of a plan if it is not finished, and a new one if it is.

        Raises:
            UnknownPlanError: if the state has no such plan.
        """
        self.roots(plan)
        with self._database.write() as connection:
            row = connection.execute(_LAST_RUN, (plan,)).fetchone()
            if row is None or row[3] is not None:
                values = (plan, _now())
                connection.execute("INSERT INTO run (plan, started) VALUES (?, ?)", values)
                row = connection.execute(_LAST_RUN, (plan,)).fetchone()
        return _read_run(row)

    def finish_run(self, run: Run) -> Run:
        """Mark a run as finished, and return it."""
        finished = _now()
        with self._database.write() as connection:
            connection.execute("UPDATE run SET finished = ? WHERE id = ?", (finished, run.number))
        return run._replace(finished=_read_time(finished))

    def runs(self) -> list[Run]:
        """Return all runs, in the order in which they were started."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT * FROM run ORDER BY id").fetchall()
        return [_read_run(row) for row in rows]

    def put_results(self, run: Run, results: Iterable[StepResult]) -> None:
        """Store outcomes of steps."""
        with self._database.write() as connection:
            connection.executemany(_PUT_RESULT, (_make_row(run, one) for one in results))

    def last_run(self, plan: bytes) -> Run | None:
        """Return the last run of a plan; None if there is none."""
        with self._database.read() as connection:
            row = connection.execute(_LAST_RUN, (plan,)).fetchone()
        return None if row is None else _read_run(row)

    def root_outputs(self, run: Run) -> dict[str, Node]:
        """Return the castore nodes of the outputs of the roots of a successful run, by path."""
        requests = {one.step: one.request for one in self.results(run)}
        outputs: dict[str, Node] = {}
        for root in self.roots(run.plan):
            request = requests[root]
            assert request is not None
            build = self.builds.get_build(request, schema=self.step(root).schema)
            assert build is not None
            outputs.update(build.outputs)
        return outputs

    def results(self, run: Run) -> Iterator[StepResult]:
        """Yield the outcomes of a run, ordered by the digest of the step."""
        last = b""
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    "SELECT * FROM result WHERE run = ? AND step > ? ORDER BY step LIMIT 1000",
                    (run.number, last),
                ).fetchall()
            if not rows:
                return
            last = rows[-1][1]
            yield from map(_read_row, rows)


def _digests_of(connection: sqlite3.Connection, plan: bytes, column: str) -> list[bytes]:
    """Return the digests in a column of a plan; none if there is no such plan."""
    row = connection.execute(
        f"SELECT CAST({column} AS BLOB) FROM plan WHERE digest = ?", (plan,)
    ).fetchone()
    return _split(b"" if row is None else row[0])


def _delete_unused(connection: sqlite3.Connection, deleted: set[bytes]) -> int:
    """Delete the steps that no plan has: those of a deleted plan, and those that were stored more
    than a day ago. Return their number."""
    steps = {digest for (digest,) in connection.execute("SELECT digest FROM step")}
    for (plan,) in connection.execute("SELECT digest FROM plan").fetchall():
        steps.difference_update(_digests_of(connection, plan, "steps"))
    changes = connection.total_changes
    before = time.time() - _UNUSED_SECONDS
    rows = ((digest, math.inf if digest in deleted else before) for digest in steps)
    connection.executemany("DELETE FROM step WHERE digest = ? AND stored <= ?", rows)
    return connection.total_changes - changes


def _split(digests: bytes) -> list[bytes]:
    """Split digests that are back to back."""
    return [digests[i : i + DIGEST_SIZE] for i in range(0, len(digests), DIGEST_SIZE)]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


def _read_run(row: tuple[int, bytes, str, str | None]) -> Run:
    return Run(row[0], row[1], datetime.fromisoformat(row[2]), _read_time(row[3]))


def _read_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _make_row(run: Run, result: StepResult) -> tuple[object, ...]:
    started, finished = (
        None if time is None else time.isoformat() for time in (result.started, result.finished)
    )
    return (
        *(run.number, result.step, result.status.value, result.request, result.builder),
        *(started, finished, result.reason, result.cause),
    )


def _read_row(row: tuple[Any, ...]) -> StepResult:
    _, step, status, request, builder, started, finished, reason, cause = row
    return StepResult(
        *(step, Status(status), request, builder),
        *(_read_time(started), _read_time(finished), reason, cause),
    )
