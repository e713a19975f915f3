# SPDX-License-Identifier: MIT
"""What the commands that write one page have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench.corpora import NoDataError


def run(
    parser: argparse.ArgumentParser,
    results: Path,
    make: Callable[[argparse.Namespace], tuple[str, bool]],
) -> int:
    """Prints a page, and writes it to `results`, or where `--output` says.

    Args:
        parser: of the command; `--output` is added.
        results: a file.
        make: gives the page of the options, and whether all on it is as it must be.

    Returns:
        The exit status: 0; 1 something is not as it must be; 2 a corpus cannot be made here.
    """
    parser.add_argument("--output", type=Path, default=results, help="file (%(default)s)")
    options = parser.parse_args()
    try:
        page, good = make(options)
    except NoDataError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    options.output.write_text(page)
    print(page)
    return 0 if good else 1
