# SPDX-License-Identifier: MIT
"""The log on stderr: one JSON object per line."""

from __future__ import annotations

import logging
from datetime import datetime, timezone

import grpc

from tvix_build._core.text import json_line
from tvix_build.proxy.line_writer import LineWriter
from tvix_build.proxy.outcomes import Observer, Outcome, ServiceOutcome

LOG = logging.getLogger("tvix_build.serve")
_FAULTS = (
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
)


class JsonLines(logging.Formatter):
    """Formats a record as a JSON object with `time`, `level`, `event`, and the fields passed as
    `extra={"fields": …}`.

    Args:
        worker: the number of this worker, as another field; None for no worker.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **self._worker,
        }
        if record.name != LOG.name:
            line["logger"] = record.name
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json_line(line)


class _Lines(logging.Handler):
    """Passes formatted records to a LineWriter."""

    def __init__(self, writer: LineWriter, worker: int | None) -> None:
        super().__init__()
        self._writer = writer
        self.setFormatter(JsonLines(worker))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record later."""
        self._writer.write(self.format(record))


def configure(level: str, worker: int | None = None) -> LineWriter:
    """Configure the logging of the process: JSON lines on stderr, which the returned writer writes.
    `level` applies to the proxy; the libraries log from `warning` on. `worker` is as for
    JsonLines."""
    writer = LineWriter(2)
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines(writer, worker)], force=True)
    LOG.setLevel(level.upper())
    return writer


def audit(writer: LineWriter) -> Observer:
    """Return an observer that writes a line for each call whose request is valid."""

    def observe(outcome: Outcome) -> None:
        if outcome.digest is None:
            return
        fields = {
            "time": datetime.now(timezone.utc).isoformat(),
            "caller": outcome.caller,
            "peer": outcome.peer,
            "schema": outcome.service.label,
            "digest": outcome.digest.hex(),
            "code": outcome.code.name,
        }
        writer.write(json_line(fields))

    return observe


def log_call(outcome: Outcome) -> None:
    """Log a call: at `debug` if it succeeded, at `warning` if the builder or the proxy failed, at
    `info` otherwise."""
    level = logging.DEBUG
    if outcome.by:
        fault = outcome.by == "upstream" or outcome.code is grpc.StatusCode.INTERNAL
        level = logging.WARNING if fault else logging.INFO
    if not LOG.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "schema": outcome.service.label,
        "code": outcome.code.name,
        "seconds": round(outcome.seconds, 6),
        "peer": outcome.peer,
        "request_bytes": outcome.request_size,
        "response_bytes": outcome.response_size,
    }
    if outcome.caller:
        fields["caller"] = outcome.caller
    if outcome.digest is not None:
        fields["digest"] = outcome.digest.hex()
    if outcome.by:
        fields["by"] = outcome.by
        fields["message"] = outcome.message
    if outcome.violations:
        fields["violations"] = outcome.violations
    if outcome.trace:
        fields["trace"] = outcome.trace
    LOG.log(level, "call", extra={"fields": fields})


def log_castore_failure(error: grpc.RpcError) -> None:
    """Log a failed call to the server behind the castore store."""
    LOG.warning("castore upstream failed", extra={"fields": {"message": str(error)}})


def log_castore_call(outcome: ServiceOutcome) -> None:
    """Log a call of the castore services: at `debug` if it succeeded or the object is missing, at
    `warning` if the store or the server behind it failed, at `info` otherwise."""
    _log_call("castore call", outcome)


def log_plan_call(outcome: ServiceOutcome) -> None:
    """Log a call of PlanService, at the same levels."""
    _log_call("plan call", outcome)


def _log_call(event: str, outcome: ServiceOutcome) -> None:
    if not outcome.by or outcome.code is grpc.StatusCode.NOT_FOUND:
        level = logging.DEBUG
    else:
        level = logging.WARNING if outcome.code in _FAULTS else logging.INFO
    if not LOG.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "method": outcome.method,
        "code": outcome.code.name,
        "seconds": round(outcome.seconds, 6),
        "peer": outcome.peer,
        "request_bytes": outcome.request_size,
        "response_bytes": outcome.response_size,
    }
    if outcome.by:
        fields["by"] = outcome.by
        fields["message"] = outcome.message
    if outcome.trace:
        fields["trace"] = outcome.trace
    LOG.log(level, event, extra={"fields": fields})
