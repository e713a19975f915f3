# SPDX-License-Identifier: MIT
"""The command `serve`: parses the options. The proxy itself is `tvix_build.proxy.server`, which is
imported late, as it needs packages of the extra `serve`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvix_build import Schema
from tvix_build.cli.configured import OPTIONS, reload_options
from tvix_build.cli.connections import (
    SANDBOX,
    client_credentials,
    server_certificate,
)
from tvix_build.cli.extras import extra
from tvix_build.cli.terminal import Monitor
from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.shared.services import Service

if TYPE_CHECKING:
    from tvix_build.castore import CastoreStore
    from tvix_build.proxy.line_writer import LineWriter
    from tvix_build.proxy.sandbox import LocalBuilder
    from tvix_build.proxy.tokens import Tokens


def run(
    listen: Sequence[Address],
    upstreams: Sequence[Address],
    check_only: bool,
    services: Sequence[Service],
    store: str | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    tls_client_names: Sequence[str],
    forwarded_metadata: Sequence[str],
    jwt_keys: Path | None,
    jwt_audience: str | None,
    jwt_issuer: str | None,
    upstream_ca: Path | None,
    upstream_certificate: Path | None,
    upstream_key: Path | None,
    traces: str | None,
    log_level: str,
    grace: float,
    castore: str | None,
    limits: dict[str, int],
    check_config: bool,
    audit: str | None,
    **others: Any,
) -> int:
    """Run the command, and return its exit status."""
    in_sandbox = SANDBOX in upstreams
    if in_sandbox and len(upstreams) > 1:
        raise click.UsageError("expected --upstream sandbox: without other builders")
    if in_sandbox and castore is None:
        raise click.UsageError("expected --castore with --upstream sandbox:")
    if limits and not in_sandbox:
        raise click.UsageError("expected --upstream sandbox: with limits of builds")
    if check_only == bool(upstreams):
        raise click.UsageError("expected one of --upstream and --check-only")
    if tls_client_names and not tls_client_ca:
        raise click.UsageError("expected --tls-client-ca with --tls-client-name")
    for service in services:
        if store is not None and service.schema is not Schema.TVIX_BUILD_V1:
            raise click.UsageError(
                f"expected --schema tvix.build.v1 only: --store keeps requests of no other "
                f"schema; found {service.schema.value}"
            )
    with extra("serve"):
        from tvix_build.proxy import listening, logs, server
        from tvix_build.proxy.callers import Certificates

        if traces is not None:
            from tvix_build.proxy.tracing import exporting_provider

            try:
                others["traces"] = exporting_provider(traces)
            except ModuleNotFoundError as error:
                raise click.ClickException(
                    f"--traces needs {error.name}: pip install "
                    "opentelemetry-exporter-otlp-proto-grpc"
                ) from None
    if (jwt_audience or jwt_issuer) and not jwt_keys:
        raise click.UsageError("expected --jwt-keys with --jwt-audience and --jwt-issuer")
    options = server.Options(
        listen,
        services,
        () if in_sandbox else upstreams,
        server_certificate(listen, tls_certificate, tls_key, tls_client_ca),
        client_credentials(
            next((one for one in upstreams if one.tls), None),
            upstream_ca,
            upstream_certificate,
            upstream_key,
            prefix="upstream-",
        ),
        store=store,
        forwarded_metadata=forwarded_metadata or None,
        certificates=Certificates(tls_client_names) if tls_client_ca else None,
        tokens=_tokens(jwt_keys, jwt_audience, jwt_issuer) if jwt_keys else None,
        **others,
    )
    if check_config:
        click.get_current_context().meta[OPTIONS] = options
        return 0
    log = logs.configure(log_level)
    try:
        with closing(log), _open_audit(audit) as audited, _open_castore(castore) as opened:
            builder = _sandbox(opened, limits) if in_sandbox and opened else None
            options = replace(options, castore=opened, log=log, audit=audited)
            asyncio.run(server.run(options, grace, builder, reload_options()))
    except listening.ServeError as error:
        Monitor().error(error)
        return 2
    return 0


def _tokens(keys: Path, audience: str | None, issuer: str | None) -> Tokens:
    """Return how tokens identify callers.

    Raises:
        click.ClickException: if PyJWT is not installed, or the file has no keys.
    """
    with extra("jwt"):
        from tvix_build.proxy.tokens import Tokens
    try:
        return Tokens(keys, audience, issuer)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def _open_audit(path: str | None) -> Iterator[LineWriter | None]:
    """Open the audit log; None without a path."""
    if path is None:
        yield None
        return
    from tvix_build.proxy.line_writer import LineWriter

    with open(path, "ab", buffering=0) as file, closing(LineWriter(file.fileno())) as writer:
        yield writer


def _open_castore(path: str | None) -> AbstractContextManager[CastoreStore | None]:
    """Open a castore store; None without a path."""
    if path is None:
        return nullcontext()
    from tvix_build.castore import CastoreStore

    return CastoreStore(path)


def _sandbox(castore: CastoreStore, limits: dict[str, int]) -> LocalBuilder:
    """Return a builder that uses a castore store.

    Raises:
        click.ClickException: if this machine has no sandbox.
    """
    from tvix_build.builders import Limits, SandboxBuilder, UnavailableError
    from tvix_build.proxy.sandbox import LocalBuilder

    try:
        return LocalBuilder(SandboxBuilder(castore, limits=Limits(**limits)))
    except UnavailableError as error:
        raise click.ClickException(str(error)) from None
