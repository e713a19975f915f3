# SPDX-License-Identifier: MIT
"""The command `serve`: parses the options. The proxy itself is `tvix_build.proxy.server`, which is
imported late, as it needs packages of the extra `serve`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tvix_build import Schema
from tvix_build.cli.command import Command
from tvix_build.cli.connections import (
    FILE,
    client_credentials,
    parse_address,
    server_credentials,
)
from tvix_build.cli.extras import extra
from tvix_build.cli.options import SECONDS
from tvix_build.cli.terminal import Monitor
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


@click.command(cls=Command, short_help="Run a validating proxy in front of a builder.")
@click.option(
    "--listen",
    metavar="ADDRESS",
    multiple=True,
    default=("grpc+http://127.0.0.1:8000",),
    show_default=True,
    callback=parse_address,
    help=f"Address to listen on: {FORMS}; repeatable. Port 0 selects a free port.",
)
@click.option(
    "--upstream",
    metavar="ADDRESS",
    callback=parse_address,
    help="Address of the builder, in the same forms.",
)
@click.option("--check-only", is_flag=True, help="Validate only: valid requests get UNIMPLEMENTED.")
@click.option(
    "--schema",
    "services",
    type=click.Choice([schema.value for schema in SERVICES]),
    multiple=True,
    default=[schema.value for schema, service in SERVICES.items() if service.module],
    show_default=True,
    callback=_parse_services,
    help="Schema of a service to offer; repeatable.",
)
@click.option(
    "--max-message-size",
    metavar="BYTES",
    type=click.IntRange(1, (1 << 31) - 1),
    default=16 << 20,
    show_default=True,
    help="Largest request and largest response to accept.",
)
@click.option(
    "--max-builds",
    metavar="N",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Limit of concurrent builds; further calls wait.",
)
@click.option(
    "--max-queue",
    metavar="N",
    type=click.IntRange(0),
    default=1024,
    show_default=True,
    help="Limit of waiting calls; further calls are rejected.",
)
@click.option(
    "--deduplicate", is_flag=True, help="Run one build for concurrent calls with the same digest."
)
@click.option(
    "--store",
    metavar="STORE",
    help="Store every request in this request store before it is built; requires --schema "
    "tvix.build.v1 only.",
)
@click.option(
    "--tls-certificate", metavar="FILE", type=FILE, help="Certificate of this server, in PEM."
)
@click.option(
    "--tls-key", metavar="FILE", type=FILE, help="Private key of the certificate, in PEM."
)
@click.option(
    "--tls-client-ca",
    metavar="FILE",
    type=FILE,
    help="Require client certificates, and verify them with these CA certificates, in PEM.",
)
@click.option(
    "--upstream-ca",
    metavar="FILE",
    type=FILE,
    help="CA certificates that verify the builder's certificate, in PEM; the default is the "
    "set that gRPC trusts.",
)
@click.option(
    "--upstream-certificate",
    metavar="FILE",
    type=FILE,
    help="Client certificate for the builder, in PEM.",
)
@click.option(
    "--upstream-key", metavar="FILE", type=FILE, help="Private key of the certificate, in PEM."
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    callback=_parse_host_and_port,
    help="Serve Prometheus metrics on this address.",
)
@click.option(
    "--traces",
    metavar="URL",
    help="Export traces to this OpenTelemetry collector by OTLP/gRPC: http://HOST:PORT.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Log level: info logs each failed call, debug logs every call.",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=SECONDS,
    default=30,
    show_default=True,
    help="How long running calls may continue after SIGTERM.",
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
    """Run a gRPC server that validates build requests. It rejects invalid requests with their
    violations, forwards valid ones to --upstream in canonical encoding, and validates responses.

    \b
    Examples:
      tvix-build serve --listen grpc+unix:/run/proxy.sock --upstream grpc+unix:/run/builder.sock
      tvix-build serve --check-only

    The log is on stderr, one JSON object per line. After SIGTERM, the proxy rejects new calls and
    waits for the running ones. Exit status: 0 after a shutdown, 2 if the proxy cannot start.
    """
    if check_only == (upstream is not None):
        raise click.UsageError("expected one of --upstream and --check-only")
    for service in services:
        if store is not None and service.schema is not Schema.TVIX_BUILD_V1:
            raise click.UsageError(
                f"expected --schema tvix.build.v1 only: --store keeps requests of no other "
                f"schema; found {service.schema.value}"
            )
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
