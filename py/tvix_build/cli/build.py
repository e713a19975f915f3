# SPDX-License-Identifier: MIT
"""The command `build`: runs a request, or builds a derivation, with a builder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from tvix_build import Report, Schema, check
from tvix_build._core.report import in_words
from tvix_build.cli.arguments import input_source, output_target, read_record
from tvix_build.cli.connections import SANDBOX, client_credentials
from tvix_build.cli.extras import extra
from tvix_build.cli.failures import FailedError
from tvix_build.cli.hints import find_hint_of
from tvix_build.cli.options import are_of_sandbox
from tvix_build.cli.reuse import Reuse
from tvix_build.cli.statuses import print_status
from tvix_build.cli.terminal import Monitor, stdout_console
from tvix_build.cli.viewer import Viewer
from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.shared.services import SERVICES, Service
from tvix_build.records import InputError
from tvix_build.records.output import output_errors
from tvix_build.records.protobuf import class_of
from tvix_build.records.writing import write_target

if TYPE_CHECKING:
    import grpc

    from tvix_build.builders.reapi.address import Address as ReapiAddress
    from tvix_build.cli.sandbox import Sandbox
    from tvix_build.proxy.client import InvalidResponseError


def run(
    file: str,
    builder: Address | ReapiAddress,
    schema: Schema,
    target: str | None,
    timeout: float | None,
    castore: str | None,
    store: str | None,
    out_link: str | None,
    builds: str | None,
    rebuild: bool,
    check_outputs: bool,
    keep_failed: bool,
    properties: list[tuple[str, str, str | None]],
    no_cache: bool,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    column: str | None,
    input_format: str | None,
    output_format: str | None,
    limits: dict[str, int],
) -> int:
    """Run the command, and return its exit status."""
    credentials = client_credentials(builder, ca, certificate, key)
    is_derivation = file.endswith(".drv")
    if is_derivation:
        schema = Schema.SNIX_BUILD_V1  # Its responses have references.
    elif store is not None:
        raise click.UsageError("expected a .drv file with --store")
    if rebuild and builds is None:
        raise click.UsageError("expected --builds with --rebuild")
    reuse = Reuse(builds, rebuild, check_outputs)
    if (properties or no_cache) and isinstance(builder, Address):
        raise click.UsageError("expected --builder reapi+grpc://… with --property and --no-cache")
    if (keep_failed or are_of_sandbox(limits)) and builder is not SANDBOX:
        raise click.UsageError(
            "expected --builder sandbox: with --keep-failed and limits other than --max-log-size"
        )
    engine: _Server | Sandbox
    if castore is not None:
        common = (file, schema, castore, out_link, reuse, keep_failed, timeout, limits)
        if builder is SANDBOX:
            from tvix_build.cli.sandbox import Sandbox

            engine = Sandbox(*common)
        else:
            from tvix_build.cli.remote import Remote

            cache = not (no_cache or rebuild or check_outputs)
            engine = Remote(*common, builder, credentials, properties, cache)
    elif isinstance(builder, Address) and builder is not SANDBOX:
        if out_link or builds or check_outputs or limits:
            raise click.UsageError(
                "expected --castore with --out-link, --builds, --check and --max-log-size"
            )
        if is_derivation:
            raise click.UsageError("expected --castore with a derivation")
        engine = _Server(builder, schema, timeout, credentials)
    else:
        expected = "sandbox:" if builder is SANDBOX else "reapi+grpc://…"
        raise click.UsageError(f"expected --castore with --builder {expected}")
    wanted = None if target is None else output_target(target, output_format)
    service = SERVICES[schema]
    if wanted is None or not wanted.format.startswith("binpb"):
        class_of(service.response)  # Fail before the build instead of after it.
    monitor = Monitor(quiet=True)
    call: Callable[[], bytes]
    if not is_derivation:
        try:
            request = _read_request(monitor, file, service, input_format, column)
        except InputError as error:
            monitor.error(error)
            return 2
        if request is None:
            return 1
        call = partial(engine.build, monitor, request)
    else:
        assert not isinstance(engine, _Server)
        call = partial(engine.build_derivation, monitor, store)
    try:
        # Open the output before the build, so that a failure comes first.
        with ExitStack() as stack:
            writer = stack.enter_context(write_target(wanted, service.response)) if wanted else None
            response = call()
            if writer is not None:
                writer.write([response])
                return 0
    except FailedError:
        return 1
    except InputError as error:
        monitor.error(error)
        return 2
    with output_errors("standard output"):
        Viewer(stdout_console(), service.response, full=False).view(
            builder.text,
            response,
            check(response, kind=service.response.kind, schema=service.response.schema),
        )
    return 0


def _read_request(
    monitor: Monitor, file: str, service: Service, input_format: str | None, column: str | None
) -> bytes | None:
    """Return the request in a file. If it is invalid, print the violations, and return None.

    Raises:
        InputError: if the file cannot be read.
    """
    source = input_source(file, input_format, column)
    data, report = read_record(source, service.request)
    if report.valid:
        return data
    name = source.record_name(source.index or 0)
    _print_violations(monitor, name, report)
    hint = find_hint_of(data, service.request, report)
    if hint:
        monitor.error(f"{name}: {hint}")
    return None


class _Server(NamedTuple):
    """A builder that is a server."""

    address: Address
    schema: Schema
    timeout: float | None
    credentials: grpc.ChannelCredentials | None

    def build(self, monitor: Monitor, request: bytes) -> bytes:
        """Return the response.

        Raises:
            FailedError: if the call fails.
        """
        with extra("grpc"):
            import grpc

            from tvix_build.proxy.client import BuildService, InvalidResponseError

        place = self.address.text
        with BuildService(place, schema=self.schema, credentials=self.credentials) as service:
            try:
                return service.do_build(request, timeout=self.timeout)
            except InvalidResponseError as error:
                monitor.error(f"{place}: {error}")
                _print_violations(monitor, place, error)
            except grpc.RpcError as error:
                print_status(monitor, place, error)
        raise FailedError


def _print_violations(monitor: Monitor, place: str, found: Report | InvalidResponseError) -> None:
    for line in in_words(found):
        monitor.error(f"{place}: {line}")
