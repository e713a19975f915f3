# SPDX-License-Identifier: MIT
"""Checks messages with the reference, for differential_fuzz.c.

Reads requests from standard input until its end. A request is a line with the name of a kind and a
size in bytes, and a message of that size. Writes a result for each request to standard output: a
line with a size in bytes, and a text of that size, with the verdict and the number of violations, a
line with code and path for each of the first 100 violations, an empty line, and the canonical
encoding if there is one.
"""

from __future__ import annotations

import sys

import reference

#: Maximum number of violations to list. All are counted.
LISTED = 100


def verdict(report: reference.ReferenceReport) -> str:
    """Return the name of the verdict in tvix_build.h, in lower case."""
    if report.canonical:
        return "canonical"
    if report.valid:
        return "valid"
    if report.digest is not None:
        return "unsorted"
    return "malformed" if report.violations == [("malformed", "")] else "invalid"


def result_of(data: bytes, kind: str, schema: str) -> bytes:
    """Return the result for a message."""
    report = reference.check(data, kind, schema)
    lines = [f"{verdict(report)} {len(report.violations)}"]
    lines += [f"{code} {path}" for code, path in report.violations[:LISTED]]
    encoding = b"" if report.digest is None else reference.canonicalize(data, kind, schema)
    return "\n".join([*lines, "\n"]).encode() + encoding


def main() -> None:
    """Check messages until the end of standard input."""
    while head := sys.stdin.buffer.readline():
        name, size = head.decode("ascii").split()
        text = result_of(sys.stdin.buffer.read(int(size)), *reference.TYPES[name])
        sys.stdout.buffer.write(b"%d\n" % len(text) + text)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
