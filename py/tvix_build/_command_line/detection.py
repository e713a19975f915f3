# SPDX-License-Identifier: MIT
"""Finds out of which schema the records of a file are."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from tvix_build import Kind, Schema, check_batch
from tvix_build._command_line.records import open_records
from tvix_build._command_line.sources import Source
from tvix_build._command_line.streams import InputError
from tvix_build._core.report import MessageType, message_type

RECORDS = 100
"""The number of records that are tried."""
# Requests of the last two are the same on the wire.
_SCHEMAS = (Schema.TVIX_BUILD_V1, Schema.SNIX_BUILD_V1, Schema.TVIX_BUILD_V1_2024)


def detect_type(source: Source, kind: Kind) -> MessageType:
    """The type of the first record of a file that has a digest in some schema; the default schema
    if the first RECORDS records have none.

    Raises:
        InputError: if the source cannot be read twice.
    """
    if source.size() is None or source.path == "-":
        raise InputError(
            f"{source.path}: expected a regular file with --schema auto, as its beginning is read "
            "twice; name the schema"
        )
    types = [message_type(kind, schema) for schema in _SCHEMAS]
    return min(types, key=lambda found: _first_record(source, found))


def _first_record(source: Source, kind: MessageType) -> int:
    """The index of the first record that has a digest as this type; RECORDS if there is none."""
    with suppress(InputError), open_records(source, kind) as batches:  # Reading it again says why.
        for batch, _ in islice(batches, 1):
            ends = batch.ends[:RECORDS]
            offsets = (batch.begins[: len(ends)], ends)
            reports = check_batch(
                batch.buffer, kind=kind.kind, schema=kind.schema, offsets=offsets, threads=1
            )
            return next((i for i, one in enumerate(reports) if one.digest is not None), RECORDS)
    return RECORDS
