# SPDX-License-Identifier: MIT
"""The command `serve`: parses the options. The proxy itself is `tvix_build.proxy.server`, which is
imported late, as it needs packages of the extra `serve`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tvix_build import Schema
from tvix_build.cli.connections import (
    client_credentials,
    server_credentials,
)
from tvix_build.cli.extras import extra
from tvix_build.cli.terminal import Monitor
from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.shared.services import Service


def run(
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
    """Run the command, and return its exit status."""
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
