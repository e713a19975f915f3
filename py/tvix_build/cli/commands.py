# SPDX-License-Identifier: MIT
"""The commands `validate`, `canonicalize`, `digest`, `show` and `diff`: options, flow, exit
statuses. The others are added.

How files are read, judged and written is in the modules beside it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import click

from tvix_build import BatchReport, Error
from tvix_build._core.report import MessageType
from tvix_build._version import __version__
from tvix_build.cli.build import build
from tvix_build.cli.canonical import (
    Refusals,
    RefusedError,
    write_canonical,
    write_digests,
)
from tvix_build.cli.convert import convert
from tvix_build.cli.diff import print_differences, read_record
from tvix_build.cli.from_drv import from_drv
from tvix_build.cli.ingest import ingest
from tvix_build.cli.options import (
    column_option,
    input_format_option,
    kind_option,
    output_format_option,
)
from tvix_build.cli.serve import serve
from tvix_build.cli.show import Viewer, selected
from tvix_build.cli.store import store
from tvix_build.cli.terminal import PROGRAM, Monitor, stdout_console
from tvix_build.records.checking import check_records
from tvix_build.records.output import Output, output_errors
from tvix_build.records.reading import Batch, Progress, open_records
from tvix_build.records.results import Summary, WriteResults, result_output
from tvix_build.records.sources import (
    Source,
    find_input,
    find_source,
    find_sources,
    refuse_stdin_twice,
)
from tvix_build.records.streams import InputError


def run(arguments: list[str]) -> int:
    """Run a command; its exit status.

    Raises:
        OSError: if an output cannot be written.
    """
    try:
        # Not click's own main(), which ends the process on a pipe that nobody reads.
        with commands.make_context(PROGRAM, arguments) as context:
            return int(commands.invoke(context) or 0)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (Error, InputError) as error:  # of a store, or of a file that is not there
        Monitor().error(error)
        return 2


@click.group(
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def commands() -> None:
    """Check tvix build requests, write them canonically, and name them by digest.

    \b
    Formats, told by a file's name:
      .binpb    one message
      .binpbs   a stream of messages, each behind its length as a varint
      .json     one message as proto3 JSON
      .ndjson   one such JSON message a line
      .txtpb    one message in protobuf's text format
    each also compressed: .zst, .gz, .xz (recognised by their first bytes, too);
      .parquet  a table with a column of messages
      .arrow    the same as an Arrow file or stream (also .feather).

    FILE[INDEX] names one record of a file, counted from 0, as all commands print it; where a file
    is read, FILE[INDEX] reads that record. A file whose own name ends so is taken for itself.

    Exit status: 0 all valid, 1 something invalid, 2 usage, or a file that cannot be read to
    its end or written.
    """


@commands.command(short_help="Say which records are valid, and why the others are not.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@kind_option
@column_option
@input_format_option
@click.option(
    "--output",
    metavar="FILE",
    help="Write one JSON object a record to FILE (also .zst, .gz, .xz), or one row if it is a "
    ".parquet or .arrow; '-' prints objects and nothing else.",
)
def validate(
    files: tuple[str, ...],
    kind: MessageType,
    column: str | None,
    input_format: str | None,
    output: str | None,
) -> int:
    """Check every record of FILEs: files, folders (all files of known formats in them), '-'.

    \b
    Examples:
      tvix-build validate requests.binpbs.zst
      zcat log.gz | tvix-build validate --input-format ndjson --output - -

    With --output each record gives a line, in order:
    {"source", "index", "offset", "valid", "canonical", "digest",
    "violations": [{"code", "path", "message"}]}; offset is the byte of the uncompressed
    file at which the record begins. At most the first 100 violations of a record are
    listed; where it has more, "violation_count" says how many. A .parquet or .arrow has the
    same as columns. Of tables the offset is null.
    """
    sources = find_sources(files, input_format, column)
    summary = Summary()
    alone = output == "-"
    with (
        result_output(output) as write,
        Monitor(_total(sources), quiet=alone) as monitor,
    ):
        for source in sources:
            try:
                _validate(source, kind, write, summary, monitor)
            except InputError as error:
                summary.failed_files += 1
                monitor.error(error)
    if not alone:
        with output_errors("standard output"):
            summary.print(stdout_console())
            sys.stdout.flush()
    return summary.status


def _validate(
    source: Source | InputError,
    kind: MessageType,
    write: WriteResults,
    summary: Summary,
    monitor: Monitor,
) -> None:
    if isinstance(source, InputError):
        raise source

    def take(batch: Batch, progress: Progress, reports: BatchReport) -> None:
        write(source, batch, reports, summary)
        monitor.show(progress.consumed, progress.offset, summary.records, summary.invalid)

    try:
        check_records(source, kind, take)
    finally:
        monitor.next_file()


@commands.command(short_help="Write records in their canonical encoding.")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@kind_option
@column_option
@input_format_option
@output_format_option
def canonicalize(
    source: str,
    target: str,
    kind: MessageType,
    column: str | None,
    input_format: str | None,
    output_format: str | None,
) -> int:
    """Write the canonical encoding of every record of IN to OUT ('-': stdin, stdout).

    \b
    Examples:
      tvix-build canonicalize request.json request.binpb
      tvix-build canonicalize requests.binpbs.xz sorted.binpbs.zst

    A record that only has lists out of order is sorted. If any other is invalid, all that
    forbids its encoding is said on stderr and nothing is written; on stdout, nothing from
    there on.
    """
    found = find_input(source, input_format, column)
    wanted = find_source(target, output_format, "--output-format", column)
    with Monitor(found.size(), quiet=target == "-") as monitor:
        try:
            write_canonical(found, wanted, kind, monitor)
        except InputError as error:
            monitor.error(error)
            return 2
        except RefusedError:
            return 1
    return 0


@commands.command(short_help="Print the digest of every record.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@kind_option
@column_option
@input_format_option
def digest(
    files: tuple[str, ...], kind: MessageType, column: str | None, input_format: str | None
) -> int:
    """Print the digest of every record of FILEs: BLAKE3 of its canonical encoding.

    \b
    Example:
      tvix-build digest request.binpb requests.binpbs

    Lines are as sha256sum's, 'HEX  FILE', and 'HEX  FILE[INDEX]' where a file can hold
    several records. A record without a canonical encoding is reported on stderr instead.
    """
    monitor = Monitor(quiet=True)
    refusals = Refusals(monitor, limit=None)
    failed = False
    with Output("-") as output:
        for source in find_sources(files, input_format, column):
            try:
                if isinstance(source, InputError):
                    raise source
                write_digests(source, output, kind, refusals)
            except InputError as error:
                failed = True
                monitor.error(error)
    return 2 if failed else 1 if refusals.count else 0


ALL_RECORDS = (0, None)


def _parse_range(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[int, int | None]:
    if value is None:
        return ALL_RECORDS
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", value, re.ASCII)
    if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
        raise click.BadParameter(f"expected N or FIRST-LAST, counted from 0, found {value!r}")
    return int(match[1]), int(match[2] or match[1])


@commands.command(short_help="Print records for people to read.")
@click.argument("file", metavar="FILE")
@kind_option
@column_option
@input_format_option
@click.option(
    "--records",
    metavar="N|FIRST-LAST",
    callback=_parse_range,
    help="Show only these records, counted from 0.",
)
@click.option("--full", is_flag=True, help="Show long values whole.")
def show(
    file: str,
    kind: MessageType,
    column: str | None,
    input_format: str | None,
    records: tuple[int, int | None],
    full: bool,
) -> int:
    """Print the records of FILE ('-': stdin) in a readable form, with what is wrong with them.

    \b
    Examples:
      tvix-build show 'requests.binpbs.zst[17]'
      tvix-build show --records 17-19 requests.binpbs.zst
    """
    source = find_input(file, input_format, column)
    if source.index is not None and records != ALL_RECORDS:
        raise click.UsageError("expected FILE[INDEX] or --records, found both")
    try:
        with output_errors("standard output"):
            return _show(source, kind, records, full)
    except InputError as error:
        Monitor().error(error)
        return 2


def _show(source: Source, kind: MessageType, records: tuple[int, int | None], full: bool) -> int:
    first, last = records
    count = status = 0
    viewer = Viewer(stdout_console(), kind, full)
    with open_records(source, kind) as batches:
        for batch, _ in batches:
            for i in selected(batch, first, last):
                if not viewer.show(source, batch, i):
                    status = 1
            count = batch.first + len(batch)
            if last is not None and count > last:
                break
    wanted = first if last is None else last
    if wanted >= count and (first or last is not None):
        raise InputError(f"expected a record {wanted}, found {count} records", source.path)
    return status


@commands.command(short_help="Say what differs between two records.")
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
@kind_option
@column_option
@input_format_option
@click.option("--full", is_flag=True, help="Show long values whole.")
def diff(
    old: str, new: str, kind: MessageType, column: str | None, input_format: str | None, full: bool
) -> int:
    """Say what differs between the records A and B, field by field: why their digests differ.

    \b
    Examples:
      tvix-build diff old.json new.binpb
      tvix-build diff requests.binpbs[3] requests.binpbs[17]

    A and B are files ('-': stdin) with one record, or FILE[INDEX]. The order of sorted lists is
    no difference: elements are compared by name or key. Of long values the part that differs is
    shown.

    Exit status: 0 A and B have the same digest, 1 they differ, 2 one has no canonical encoding,
    or cannot be read.
    """
    try:
        sources = [find_input(name, input_format, column) for name in (old, new)]
        refuse_stdin_twice(sources)
        records = [read_record(source, kind) for source in sources]
        names = [source.record_name(source.index or 0) for source in sources]
        with output_errors("standard output"):
            return print_differences(stdout_console(), names, records, kind, full)
    except InputError as error:
        Monitor().error(error)
        return 2


commands.add_command(build)
commands.add_command(convert)
commands.add_command(from_drv)
commands.add_command(ingest)
commands.add_command(serve)
commands.add_command(store)


def _total(sources: Sequence[Source | InputError]) -> int | None:
    """Bytes of all files; None if one is not known."""
    total = 0
    for source in sources:
        size = 0 if isinstance(source, InputError) else source.size()
        if size is None:
            return None
        total += size
    return total
