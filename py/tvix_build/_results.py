# SPDX-License-Identifier: MIT
"""What a validation found: one JSON line a record, and a summary for people.

Looks closely only at what is invalid; the rest is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.table import Table

from tvix_build import BatchReport, Report, ViolationCode
from tvix_build._records import Batch
from tvix_build._terminal import Console, printable

EXAMPLES = 3
MESSAGE_LIMIT = 200


def json_lines(source: str, batch: Batch, reports: BatchReport) -> bytes:
    """One JSON object a record, in order; a record with a digest has it in lowercase hex."""
    head = f'{{"source": {json.dumps(source)}, "index": '
    digests = bytes(reports.digests).hex()
    canonical = reports.canonical
    invalid = set(reports.invalid)
    lines = []
    for i, offset in enumerate(batch.offsets):
        start = f'{head}{batch.first + i}, "offset": {offset}, "valid": '
        if i in invalid:
            lines.append(start + _invalid_rest(batch.report(i, reports[i])))
        else:
            flag = "true" if canonical[i] else "false"
            digest = digests[64 * i : 64 * i + 64]
            lines.append(
                f'{start}true, "canonical": {flag}, "digest": "{digest}", "violations": []}}\n'
            )
    return "".join(lines).encode()


def _invalid_rest(report: Report) -> str:
    """The line of an invalid record from the value of `valid` on."""
    violations = [
        {"code": violation.code.value, "path": violation.path, "message": violation.message}
        for violation in report.violations
    ]
    digest = None if report.digest is None else report.digest.hex()
    rest = f'false, "canonical": false, "digest": {json.dumps(digest)}, '
    rest += f'"violations": {json.dumps(violations)}'
    if report.violation_count > len(violations):
        rest += f', "violation_count": {report.violation_count}'
    return rest + "}\n"


@dataclass
class CodeCount:
    """How many records have a violation of one code, and the first of them."""

    records: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """Counts over all records, and the files that failed."""

    records: int = 0
    valid: int = 0
    canonical: int = 0
    failed_files: int = 0
    codes: dict[ViolationCode, CodeCount] = field(default_factory=dict)

    @property
    def invalid(self) -> int:
        """Records that are not valid."""
        return self.records - self.valid

    @property
    def status(self) -> int:
        """The exit status that follows."""
        return 2 if self.failed_files else 1 if self.invalid else 0

    def add(self, source: str, batch: Batch, reports: BatchReport) -> None:
        """Count a batch."""
        self.records += len(batch)
        self.valid += reports.valid_count
        self.canonical += reports.canonical_count
        for i in reports.invalid:
            self._add_invalid(source, batch, i, batch.report(i, reports[i]))

    def _add_invalid(self, source: str, batch: Batch, i: int, report: Report) -> None:
        seen = set()
        for violation in report.violations:
            if violation.code in seen:
                continue
            seen.add(violation.code)
            count = self.codes.setdefault(violation.code, CodeCount())
            count.records += 1
            if len(count.examples) < EXAMPLES:
                place = f"{source}: record {batch.first + i} at byte {batch.offsets[i]}"
                path = f"{violation.path}: " if violation.path else ""
                message = printable(violation.message, MESSAGE_LIMIT)
                count.examples.append(f"{printable(place)}: {path}{message}")

    def print(self, console: Console) -> None:
        """Print a table of the counts, then the first examples of each code."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column()
        table.add_column(justify="right")
        for name, count, style in self._rows():
            table.add_row(name, f"{count:,}", style=style)
        console.print(table, highlight=False)
        for code, counted in self._ordered():
            console.say("")
            console.say(f"{code.value}, first examples:", style="bold")
            for example in counted.examples:
                console.say(f"  {example}")

    def _rows(self) -> Iterator[tuple[str, int, str | None]]:
        yield "records", self.records, None
        yield "valid", self.valid, "green" if self.valid else None
        yield "canonical", self.canonical, None
        yield "invalid", self.invalid, "bold red" if self.invalid else None
        for code, counted in self._ordered():
            yield f"  {code.value}", counted.records, "red"
        if self.failed_files:
            yield "files not read to their end", self.failed_files, "bold red"

    def _ordered(self) -> list[tuple[ViolationCode, CodeCount]]:
        order = {code: place for place, code in enumerate(ViolationCode)}
        return sorted(self.codes.items(), key=lambda item: order[item[0]])
