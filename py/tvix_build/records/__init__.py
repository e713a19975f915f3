# SPDX-License-Identifier: MIT
"""Reads files of records as batches, and writes records and the results of checks.

    >>> from tvix_build import build_request, records
    >>> requests = [build_request(command_args=["/bin/true"], outputs=[name]) for name in "ab"]
    >>> with records.open_writer("corpus.binpbs.gz") as writer:
    ...     writer.write(request.SerializeToString() for request in requests)
    >>> for batch in records.read("corpus.binpbs.gz"):
    ...     report = batch.check()
    ...     print(batch.name(1), report[1].valid)
    corpus.binpbs.gz[1] True

A file's name says its format and its compression, or the argument `format` says the format:

| format | holds |
| --- | --- |
| `binpb` | one message |
| `binpbs` | messages that each follow their length, a varint |
| `json` | one message as proto3 JSON |
| `ndjson` | one message as proto3 JSON a line |
| `txtpb` | one message in the text format of protobuf |
| `parquet`, `arrow` | a column of messages; `pip install 'tvix-build[arrow]'` |

All but tables may be compressed: `.zst` (`pip install zstandard`), `.gz`, `.xz`. JSON and text are
read strictly: what protobuf's parsers accept with a loss is an error. Memory is constant.
"""

from tvix_build._core.names import set_public_module
from tvix_build.records.batch import Batch
from tvix_build.records.errors import FormatError, InputError, MissingPackageError, OutputError
from tvix_build.records.interface import check, open_writer, read
from tvix_build.records.results import ResultWriter, open_results
from tvix_build.records.writing import Writer

__all__ = [
    "Batch",
    "FormatError",
    "InputError",
    "MissingPackageError",
    "OutputError",
    "ResultWriter",
    "Writer",
    "check",
    "open_results",
    "open_writer",
    "read",
]

set_public_module(globals())
