# SPDX-License-Identifier: MIT
"""The command `serve`: reads the options. What serves is in `tvix_build.proxy`, which is imported
once it is needed, as its packages are an extra of their own."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tvix_build import Schema
from tvix_build._command_line.connections import (
    FILE,
    client_credentials,
    parse_address,
    server_credentials,
)
from tvix_build._command_line.extras import extra
from tvix_build._command_line.options import SECONDS
from tvix_build._command_line.terminal import Monitor
from tvix_build.proxy.shared.addresses import FORMS, Address
from tvix_build.proxy.shared.services import SERVICES, Service


def _parse_host_and_port(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(?P<host>[^:\s]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})", value, re.ASCII)
    if match is None or int(match["port"]) > 65535:
        raise click.BadParameter(f"expected HOST:PORT, found {value!r}")
    return match["host"].strip("[]"), int(match["port"])


def _parse_services(
    _context: click.Context, _option: click.Parameter, value: tuple[str, ...]
) -> list[Service]:
    services = [SERVICES[Schema(schema)] for schema in dict.fromkeys(value)]
    for i, service in enumerate(services):
        for other in services[:i]:
            if other.name == service.name:
                raise click.BadParameter(
                    f"expected one schema for {service.name}, found {other.schema.value} and "
                    f"{service.schema.value}"
                )
    return services


@click.command(short_help="Serve a door that checks requests before a builder sees them.")
@click.option(
    "--listen",
    metavar="ADDRESS",
    multiple=True,
    default=("grpc+http://127.0.0.1:8000",),
    show_default=True,
    callback=parse_address,
    help=f"Where to listen: {FORMS}; may come several times. Port 0 stands for any that is free.",
)
@click.option(
    "--upstream", metavar="ADDRESS", callback=parse_address, help="The builder, in the same forms."
)
@click.option("--check-only", is_flag=True, help="Answer UNIMPLEMENTED after the check.")
@click.option(
    "--schema",
    "services",
    type=click.Choice([schema.value for schema in SERVICES]),
    multiple=True,
    default=[schema.value for schema, service in SERVICES.items() if service.module],
    show_default=True,
    callback=_parse_services,
    help="What to offer; may come several times.",
)
@click.option(
    "--max-message-size",
    metavar="BYTES",
    type=click.IntRange(1, (1 << 31) - 1),
    default=16 << 20,
    show_default=True,
    help="The most that a request or an answer may have.",
)
@click.option(
    "--max-builds",
    metavar="N",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="How many calls the builder has at once; others wait.",
)
@click.option(
    "--max-queue",
    metavar="N",
    type=click.IntRange(0),
    default=1024,
    show_default=True,
    help="How many calls may wait; others are refused.",
)
@click.option(
    "--deduplicate", is_flag=True, help="Calls in flight with one digest share one build."
)
@click.option(
    "--store",
    metavar="STORE",
    help="Record every request in this request store before it is built; with --schema "
    "tvix.build.v1 alone.",
)
@click.option("--tls-certificate", metavar="FILE", type=FILE, help="Of this server, in PEM.")
@click.option("--tls-key", metavar="FILE", type=FILE, help="Its private key, in PEM.")
@click.option(
    "--tls-client-ca",
    metavar="FILE",
    type=FILE,
    help="Accept clients with a certificate of these authorities only.",
)
@click.option(
    "--upstream-ca",
    metavar="FILE",
    type=FILE,
    help="Authorities of the builder's certificate, instead of those that gRPC trusts.",
)
@click.option(
    "--upstream-certificate",
    metavar="FILE",
    type=FILE,
    help="Of this client of the builder, in PEM.",
)
@click.option("--upstream-key", metavar="FILE", type=FILE, help="Its private key, in PEM.")
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    callback=_parse_host_and_port,
    help="Serve metrics for Prometheus there.",
)
@click.option(
    "--traces",
    metavar="URL",
    help="Send traces to this OpenTelemetry collector by OTLP/gRPC: http://HOST:PORT.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to log: info has a line for each call that is refused, debug for all.",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=SECONDS,
    default=30,
    show_default=True,
    help="How long calls may go on after SIGTERM.",
)
def serve(
    listen: Sequence[Address],
    upstream: Address | None,
    check_only: bool,
    services: Sequence[Service],
    store: str | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    upstream_ca: Path | None,
    upstream_certificate: Path | None,
    upstream_key: Path | None,
    traces: str | None,
    log_level: str,
    grace: float,
    **others: Any,
) -> int:
    """Take build requests by gRPC, turn invalid ones away with all reasons, and have the others
    built by --upstream, each in its canonical encoding; answers are checked, too.

    \b
    Examples:
      tvix-build serve --listen grpc+unix:/run/door.sock --upstream grpc+unix:/run/builder.sock
      tvix-build serve --check-only

    The log is on stderr, a JSON object a line. SIGTERM closes the door: no new calls, those in
    flight end. Exit status: 0 after that, 2 if the door cannot be opened.
    """
    if check_only == (upstream is not None):
        raise click.UsageError("expected one of --upstream and --check-only")
    for service in services:
        if store is not None and service.schema is not Schema.TVIX_BUILD_V1:
            raise click.UsageError(
                f"expected --schema tvix.build.v1 alone with --store, which keeps no others' "
                f"requests, found {service.schema.value}"
            )
    # The C core of gRPC would write lines of its own; what they say, statuses say, too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with extra("serve"):
        from tvix_build.proxy import logs, server

        if traces is not None:
            from tvix_build.proxy.tracing import exporting_provider

            try:
                others["traces"] = exporting_provider(traces)
            except ModuleNotFoundError as error:
                raise click.ClickException(
                    f"--traces needs {error.name}: pip install "
                    "opentelemetry-exporter-otlp-proto-grpc"
                ) from None
    options = server.Options(
        listen,
        services,
        upstream,
        server_credentials(listen, tls_certificate, tls_key, tls_client_ca),
        client_credentials(
            upstream, upstream_ca, upstream_certificate, upstream_key, prefix="upstream-"
        ),
        store=store,
        **others,
    )
    logs.configure(log_level)
    try:
        asyncio.run(server.run(options, grace))
    except server.ServeError as error:
        Monitor().error(error)
        return 2
    return 0
