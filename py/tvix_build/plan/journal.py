# SPDX-License-Identifier: MIT
"""The plans that a server runs, and their events, in an SQLite file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tvix_build.plan.v1.rpc_plan_pb2 import Event, ListPlansResponse, StartPlanRequest
from tvix_build.store.database import Database, Form

_TABLES = (
    # events: the number of the last event. finished_run: the number of the last finished run that
    # was started before, or 0.
    "CREATE TABLE plan (digest BLOB NOT NULL PRIMARY KEY, request BLOB NOT NULL,"
    " status INTEGER NOT NULL, steps INTEGER NOT NULL, started INTEGER NOT NULL,"
    " finished_run INTEGER NOT NULL, events INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE event (plan BLOB NOT NULL, number INTEGER NOT NULL, kind INTEGER NOT NULL,"
    " step BLOB NOT NULL, encoding BLOB NOT NULL, PRIMARY KEY (plan, number))",
)
_FORM = Form("journal of plans", int.from_bytes(b"tvxj", "big"), 1, _TABLES)
_EVENTS_AT_ONCE = 256
_OUTCOMES = (Event.KIND_BUILT, Event.KIND_CACHED, Event.KIND_FAILED, Event.KIND_SKIPPED)


class Submission(NamedTuple):
    """A plan that was started."""

    plan: bytes
    """The digest of the plan."""
    request: StartPlanRequest
    """How it was started."""
    finished_run: int
    """The number of the last run that was finished before, or 0."""


class Journal:
    """Stores events of plans. What a method has stored when it returns survives a crash.

    Args:
        path: the file, which is created if it does not exist.

    Raises:
        StoreError: from the constructor and from all methods, if the file cannot be read or
            written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(path, _FORM, create=True)

    def close(self) -> None:
        """Close the journal."""
        self._database.close()

    def start(self, submission: Submission, steps: int) -> None:
        """Store that a plan is running. The events of a finished run are deleted; those of a
        cancelled one remain, because the run continues.

        Args:
            submission: the plan.
            steps: the number of its steps.
        """
        plan = submission.plan
        with self._database.write() as connection:
            status = _status(connection.execute(_STATUS, (plan,)).fetchone())
            if status == ListPlansResponse.STATUS_CANCELLED:
                kind = Event.KIND_CANCELLED
                connection.execute("DELETE FROM event WHERE plan = ? AND kind = ?", (plan, kind))
            elif status is not None:
                connection.execute("DELETE FROM event WHERE plan = ?", (plan,))
            values = (
                *(plan, submission.request.SerializeToString()),
                *(ListPlansResponse.STATUS_RUNNING, steps, now(), submission.finished_run),
            )
            connection.execute(
                "INSERT INTO plan VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT (digest) DO UPDATE SET"
                " request = excluded.request, status = excluded.status, steps = excluded.steps,"
                " started = excluded.started, finished_run = excluded.finished_run",
                values,
            )

    def delete(self, plan: bytes) -> None:
        """Delete a plan and its events."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM event WHERE plan = ?", (plan,))
            connection.execute("DELETE FROM plan WHERE digest = ?", (plan,))

    def running(self) -> list[Submission]:
        """Return the plans that are running."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT digest, request, finished_run FROM plan WHERE status = ? ORDER BY started",
                (ListPlansResponse.STATUS_RUNNING,),
            ).fetchall()
        return [Submission(row[0], StartPlanRequest.FromString(row[1]), row[2]) for row in rows]

    def status(self, plan: bytes) -> int | None:
        """Return the status of a plan; None if it was never started."""
        with self._database.read() as connection:
            return _status(connection.execute(_STATUS, (plan,)).fetchone())

    def plans(self) -> list[ListPlansResponse]:
        """Return all plans, the one that was started last first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT digest, status, steps, started FROM plan ORDER BY started DESC"
            ).fetchall()
        return [
            ListPlansResponse(plan=row[0], status=row[1], steps=row[2], started=row[3])
            for row in rows
        ]

    def append(self, plan: bytes, events: Iterable[Event], status: int | None = None) -> None:
        """Store events, which get the next numbers, and the new status of the plan, if any."""
        with self._database.write() as connection:
            (number,) = connection.execute(
                "SELECT events FROM plan WHERE digest = ?", (plan,)
            ).fetchone()
            rows = []
            for event in events:
                number += 1
                event.number = number
                rows.append((plan, number, event.kind, event.step, event.SerializeToString()))
            connection.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?)", rows)
            connection.execute(
                "UPDATE plan SET events = ?, status = coalesce(?, status) WHERE digest = ?",
                (number, status, plan),
            )

    def events(
        self, plan: bytes, first: int, kinds: Sequence[int] = (), step: bytes = b""
    ) -> list[tuple[int, bytes]]:
        """Return the numbers and encodings of the next events of a plan, of some kinds or of all,
        and if a step is given, of this step and of the plan itself; none if there are no more."""
        wanted = f"AND kind IN ({','.join('?' * len(kinds))})" if kinds else ""
        steps = (step, b"") if step else ()
        wanted += " AND step IN (?, ?)" if step else ""
        with self._database.read() as connection:
            return connection.execute(
                f"SELECT number, encoding FROM event WHERE plan = ? AND number >= ? {wanted}"
                f" ORDER BY number LIMIT {_EVENTS_AT_ONCE}",
                (plan, first, *kinds, *steps),
            ).fetchall()

    def finished_steps(self, plan: bytes) -> set[bytes]:
        """Return the digests of the steps that have an event with their outcome."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT step FROM event WHERE plan = ? AND kind IN {_OUTCOMES}", (plan,)
            ).fetchall()
        return {row[0] for row in rows}


_STATUS = "SELECT status FROM plan WHERE digest = ?"


def now() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000


def _status(row: tuple[int] | None) -> int | None:
    return None if row is None else row[0]
