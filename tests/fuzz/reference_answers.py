# SPDX-License-Identifier: MIT
"""Says what the reference finds, for differential_fuzz.c: a question after the other, to the end.

A question is a line with the name of a kind and a size, and a message of so many bytes. The answer
is a line with a size and so many bytes: the verdict and how many violations there are, a line for
each of the first 100 (code and path), an empty line, and the canonical encoding if there is one.
"""

from __future__ import annotations

import sys

import reference

#: Violations that are listed; all are counted.
LISTED = 100
#: Of each name: kind and schema.
KINDS = {
    b"tvix.build.v1.BuildRequest": ("build-request", reference.FIRST),
    b"tvix.build.v1.Build": ("build", reference.FIRST),
    b"tvix.castore.v1.Directory": ("directory", reference.FIRST),
    b"tvix.build.v1@2024.BuildRequest": ("build-request", reference.TVIX_2024),
    b"tvix.build.v1@2024.Build": ("build", reference.TVIX_2024),
    b"snix.build.v1.BuildRequest": ("build-request", reference.SNIX),
    b"snix.build.v1.BuildResponse": ("build", reference.SNIX),
    b"snix.castore.v1.Directory": ("directory", reference.SNIX),
}


def verdict(report: reference.ReferenceReport) -> str:
    """The verdict in the words of tvix_build.h."""
    if report.canonical:
        return "canonical"
    if report.valid:
        return "valid"
    if report.digest is not None:
        return "unsorted"
    return "malformed" if report.violations == [("malformed", "")] else "invalid"


def answer(data: bytes, kind: str, schema: str) -> bytes:
    """What there is to say of a message."""
    report = reference.check(data, kind, schema)
    lines = [f"{verdict(report)} {len(report.violations)}"]
    lines += [f"{code} {path}" for code, path in report.violations[:LISTED]]
    encoding = b"" if report.digest is None else reference.canonicalize(data, kind, schema)
    return "\n".join([*lines, "\n"]).encode() + encoding


def main() -> None:
    """Answers questions."""
    while head := sys.stdin.buffer.readline():
        name, size = head.split()
        text = answer(sys.stdin.buffer.read(int(size)), *KINDS[name])
        sys.stdout.buffer.write(b"%d\n" % len(text) + text)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
