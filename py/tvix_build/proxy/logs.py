# SPDX-License-Identifier: MIT
"""The log: a JSON object a line, on stderr."""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timezone

import grpc

from tvix_build._text import json_line
from tvix_build.proxy.outcomes import Outcome

LOG = logging.getLogger("tvix_build.serve")


class JsonLines(logging.Formatter):
    """A line has `time`, `level`, `event`, and the fields of `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if record.name != LOG.name:
            line["logger"] = record.name
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json_line(line)


def configure(level: str) -> None:
    """Have all logs of the process written so; those of libraries from `warning` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOG.setLevel(level.upper())


def log_call(outcome: Outcome) -> None:
    """A line for a call: `debug` if it went well, `info` if its caller is to blame."""
    level = logging.DEBUG
    if outcome.by:
        fault = outcome.by == "upstream" or outcome.code is grpc.StatusCode.INTERNAL
        level = logging.WARNING if fault else logging.INFO
    if not LOG.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "schema": outcome.service.schema.value,
        "code": outcome.code.name,
        "seconds": round(outcome.seconds, 6),
        "peer": outcome.peer(),
        "request_bytes": outcome.request_size,
        "answer_bytes": outcome.answer_size,
    }
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
