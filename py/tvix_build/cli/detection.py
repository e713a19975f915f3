# SPDX-License-Identifier: MIT
"""Detects the schema of the records of a file."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from tvix_build import Kind, Schema
from tvix_build._core.report import MessageType, message_type
from tvix_build.records import InputError
from tvix_build.records.reading import read_messages
from tvix_build.records.source import Source

RECORDS = 100
"""The number of records to try."""
# Requests of the last two schemas have the same wire format.
_SCHEMAS = (Schema.TVIX_BUILD_V1, Schema.SNIX_BUILD_V1, Schema.TVIX_BUILD_V1_2024)


def detect_type(source: Source, kind: Kind) -> MessageType:
    """Return the type of the first record of a file that has a digest in any schema; the type of
    the default schema if none of the first RECORDS records has a digest.

    Raises:
        InputError: if the source cannot be read twice.
    """
    if source.size() is None or source.path == "-":
        raise InputError(
            f"{source.path}: --schema auto requires a regular file, because it reads the beginning "
            "twice; pass another --schema"
        )
    types = [message_type(kind, schema) for schema in _SCHEMAS]
    return min(types, key=lambda found: _first_record(source, found))


def _first_record(source: Source, kind: MessageType) -> int:
    """Return the index of the first record that has a digest as this type, or RECORDS."""
    with suppress(InputError):  # The command reads the file again, and reports the error.
        for batch in islice(read_messages(source, kind), 1):
            reports = batch.check(threads=1)
            digests = (report.digest for report in islice(reports, RECORDS))
            return next((i for i, one in enumerate(digests) if one is not None), RECORDS)
    return RECORDS
