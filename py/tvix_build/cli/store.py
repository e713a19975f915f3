# SPDX-License-Identifier: MIT
"""The commands of `tvix-build store`. They import `tvix_build.store` when they run, because Python
may have been built without SQLite."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from tvix_build._core.report import message_type
from tvix_build.cli.arguments import input_sources, output_target
from tvix_build.cli.digest import write_digests
from tvix_build.cli.refusals import Refusals, RefusedError
from tvix_build.cli.terminal import Monitor, printable, stdout_console
from tvix_build.records import InputError, Writer
from tvix_build.records.output import Output, output_errors
from tvix_build.records.source import total_size
from tvix_build.records.writing import write_target

if TYPE_CHECKING:
    from tvix.castore.protos.castore_pb2 import Node
    from tvix_build.store import RequestStore


def _open(path: str, create: bool = False) -> RequestStore:
    from tvix_build.store import RequestStore

    return RequestStore(path, create=create)


def add(path: str, files: tuple[str, ...], column: str | None, input_format: str | None) -> int:
    """Run the command, and return its exit status."""
    failed = False
    sources = input_sources(files, input_format, column)
    with (
        _open(path, create=True) as requests,
        Output("-") as output,
        Monitor(total_size(sources), results=True) as monitor,
    ):
        refusals = Refusals(monitor, limit=None)
        for source in sources:
            try:
                if isinstance(source, InputError):
                    raise source
                write_digests(source, output, message_type(), refusals, monitor, requests.put_many)
            except InputError as error:
                failed = True
                monitor.error(error)
    return 2 if failed else 1 if refusals.count else 0


def get(path: str, digests: tuple[str, ...], target: str, output_format: str | None) -> int:
    """Run the command, and return its exit status."""
    wanted = output_target(target, output_format)
    if len(digests) > 1 and not wanted.many:
        raise click.UsageError(
            f"expected one DIGEST for a .{wanted.format} file, found {len(digests)}; write .binpbs "
            "or .ndjson"
        )
    monitor = Monitor(quiet=True)
    try:
        with _open(path) as requests, write_target(wanted, message_type()) as writer:
            _get(requests, digests, writer, monitor)
    except RefusedError:
        return 1
    return 0


def _get(
    requests: RequestStore,
    digests: tuple[str, ...],
    writer: Writer,
    monitor: Monitor,
) -> None:
    from tvix_build.store import AmbiguousDigestError, UnknownDigestError

    refused = False
    for digest in digests:
        try:
            request = requests.get(digest)
        except (AmbiguousDigestError, UnknownDigestError) as error:
            monitor.error(error)
            refused = True
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        else:
            if not refused:
                writer.write([request])
    if refused:
        raise RefusedError


def list_requests(path: str) -> int:
    """Run the command, and return its exit status."""
    with _open(path) as requests, Output("-") as output:
        for digest, request in requests:
            output.write(f"{digest.hex()}  {len(request)}\n".encode())
    return 0


def list_builds(path: str, as_json: bool) -> int:
    """Run the command, and return its exit status."""
    with _open(path) as store, Output("-") as output:
        for schema, build in store.builds():
            record = build.record
            if as_json:
                outputs = [_describe(place, node) for place, node in build.outputs.items()]
                line = json.dumps({**record.to_json(), "schema": schema.value, "outputs": outputs})
            else:
                seconds = (record.finished - record.started).total_seconds()
                words = (record.request_digest.hex(), schema.value, record.builder)
                line = f"{'  '.join(words)}  {seconds:.2f}"
            output.write(f"{line}\n".encode())
    return 0


def _describe(path: str, node: Node) -> dict[str, str]:
    """Return an output as a JSON object."""
    kind = node.WhichOneof("node")
    assert kind
    if kind == "symlink":
        return {
            "path": path,
            "type": kind,
            "target": node.symlink.target.decode(errors="backslashreplace"),
        }
    return {"path": path, "type": kind, "digest": getattr(node, kind).digest.hex()}


def verify(path: str) -> int:
    """Run the command, and return its exit status."""
    console = stdout_console()
    with _open(path) as requests, output_errors("standard output"):
        damages = requests.verify()
        for damage in damages:
            place = "" if damage.digest is None else f"{damage.digest.hex()}: "
            console.say(f"{place}{printable(damage.message)}", style="red")
        if not damages:
            builds = sum(1 for _ in requests.builds())
            console.say(f"{len(requests):,} requests, {builds:,} builds, no damage")
    return 1 if damages else 0
