# SPDX-License-Identifier: MIT
"""Reads files of records in batches, and writes records and the results of checks.

    >>> from tvix_build import build_request, records
    >>> requests = [build_request(command_args=["/bin/true"], outputs=[name]) for name in "ab"]
    >>> with records.open_writer("corpus.binpbs.gz") as writer:
    ...     writer.write(request.SerializeToString() for request in requests)
    >>> for batch in records.read("corpus.binpbs.gz"):
    ...     report = batch.check()
    ...     print(batch.name(1), report[1].valid)
    corpus.binpbs.gz[1] True

The name of a file determines its format and compression. The argument `format` overrides the
format:

| format | holds |
| --- | --- |
| `binpb` | one message |
| `binpbs` | messages, each with its length before it, a varint |
| `json` | one message in proto3 JSON |
| `ndjson` | messages in proto3 JSON, one per line |
| `txtpb` | one message in protobuf text format |
| `parquet`, `arrow` | a column of messages; `pip install 'tvix-build[arrow]'` |

All formats except tables may be compressed: `.zst` (before Python 3.14: `pip install
backports.zstd`), `.gz`, `.xz`. JSON and text are parsed strictly: input that protobuf's parsers
would change is an error. Files are read in constant memory.
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
