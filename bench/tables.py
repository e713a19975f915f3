# SPDX-License-Identifier: MIT
"""nixpkgs' requests as Parquet, the same again and again until they are as many bytes as wanted."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench import corpora

GIGABYTE = 10**9
ROW_GROUP = 4096
"""Rows of a group, some 30 MB."""


@dataclass(frozen=True)
class Tables:
    """A directory of Parquet files with columns `id`, which counts from 0 on, and `request`.

    Attributes:
        directory: in it they are, in the order of their names.
        records: how many there are in each file.
        files: how many files.
        bytes: of all messages.
    """

    directory: Path
    records: int
    files: int
    bytes: int

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return [self.directory / f"{number:03}.parquet" for number in range(self.files)]

    @property
    def packed(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.paths)


@contextmanager
def tables(size: int) -> Iterator[Tables]:
    """Files of at least `size` bytes of messages, which are gone afterwards.

    Raises:
        NoDataError: if there are no requests of nixpkgs.
    """
    items = [*corpora.nixpkgs("direct"), *corpora.nixpkgs("closure")]
    once = sum(map(len, items))
    column = pa.array(items, pa.binary())
    with tempfile.TemporaryDirectory(prefix="tvix-build-") as name:
        found = Tables(Path(name), len(items), -(-size // once), 0)
        for number, path in enumerate(found.paths):
            first = number * len(items)
            table = pa.table({"id": range(first, first + len(items)), "request": column})
            # As `tvix-build convert` writes them.
            pq.write_table(
                table,
                path,
                row_group_size=ROW_GROUP,
                compression="zstd",
                use_dictionary=False,
                write_page_checksum=True,
            )
        yield Tables(found.directory, found.records, found.files, once * found.files)
