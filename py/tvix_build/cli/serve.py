# SPDX-License-Identifier: MIT
"""The command `serve`: parses the options. The proxy itself is `tvix_build.proxy.server`, which is
imported late, as it needs packages of the extra `serve`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
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
    import grpc

    from tvix_build.builders import Builder
    from tvix_build.builders.reapi.address import Address as ReapiAddress
    from tvix_build.castore import CastoreStore
    from tvix_build.proxy.line_writer import LineWriter
    from tvix_build.proxy.tokens import Tokens


def run(
    listen: Sequence[Address],
    upstreams: Sequence[Address | ReapiAddress],
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
    castore_upstream: Address | None,
    directory_sizes: str,
    plans: str | None,
    max_plan_builds: int | None,
    limits: dict[str, int],
    properties: Sequence[tuple[str, str, str | None]],
    check_config: bool,
    audit: str | None,
    **others: Any,
) -> int:
    """Run the command, and return its exit status."""
    servers = [one for one in upstreams if isinstance(one, Address) and one is not SANDBOX]
    local = next((one for one in upstreams if one not in servers), None)
    if local is not None and len(upstreams) > 1:
        raise click.UsageError(f"expected --upstream {local.text} without other builders")
    if local is not None and castore is None:
        raise click.UsageError(f"expected --castore with --upstream {local.text}")
    if plans is not None and local is None:
        raise click.UsageError("expected --upstream sandbox: or reapi+grpc://… with --plans")
    if plans is None and max_plan_builds is not None:
        raise click.UsageError("expected --plans with --max-plan-builds")
    if castore is None and (castore_upstream is not None or directory_sizes != "specified"):
        raise click.UsageError("expected --castore with --castore-upstream and --directory-sizes")
    if limits and local is not SANDBOX:
        raise click.UsageError("expected --upstream sandbox: with limits of builds")
    if properties and (local is None or local is SANDBOX):
        raise click.UsageError("expected --upstream reapi+grpc://… with --property")
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
        from tvix_build.proxy.castore_builder import CastoreBuilder
        from tvix_build.proxy.plan_runs import PlanOptions

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
    credentials = client_credentials(
        next((one for one in upstreams if one.tls), None),
        upstream_ca,
        upstream_certificate,
        upstream_key,
        prefix="upstream-",
    )
    options = server.Options(
        listen,
        services,
        servers,
        server_certificate(listen, tls_certificate, tls_key, tls_client_ca),
        credentials,
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
        with ExitStack() as stack:
            stack.enter_context(closing(log))
            audited = stack.enter_context(_open_audit(audit))
            builder = None
            opened = _open_castore(stack, castore, castore_upstream, directory_sizes, services)
            if opened is not None and local is not None:
                opening = _open_builder(local, opened, limits, properties, credentials)
                engine = stack.enter_context(opening)
                builder = CastoreBuilder(engine)
                if plans is not None:
                    builds = max_plan_builds or os.cpu_count() or 1
                    made = PlanOptions(plans, engine, local.text, builds)
                    options = replace(options, plans=made)
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


def _open_castore(
    stack: ExitStack,
    path: str | None,
    upstream: Address | None,
    directory_sizes: str,
    services: Sequence[Service],
) -> CastoreStore | None:
    """Open a castore store, until the stack ends; None without a path.

    Args:
        upstream: the address of the server behind the store, or None. Of its services, those of
            snix are called, unless this server has only those of tvix.
    """
    if path is None:
        return None
    from tvix_build.castore import CastoreStore

    if upstream is None:
        return stack.enter_context(CastoreStore(path, directory_sizes=directory_sizes))
    from tvix_build.castore.backed import BackedStore
    from tvix_build.castore.client import CastoreClient

    schemas = [service.schema for service in services]
    schema = Schema.SNIX_BUILD_V1 if Schema.SNIX_BUILD_V1 in schemas else schemas[0]
    client = stack.enter_context(CastoreClient(upstream.text, schema=schema))
    return stack.enter_context(BackedStore(path, client, directory_sizes=directory_sizes))


def _open_builder(
    upstream: Address | ReapiAddress,
    castore: CastoreStore,
    limits: dict[str, int],
    properties: Sequence[tuple[str, str, str | None]],
    credentials: grpc.ChannelCredentials | None,
) -> AbstractContextManager[Builder]:
    """Return the sandbox, or the builder that runs requests on an engine.

    Raises:
        click.ClickException: if this machine has no sandbox.
    """
    if isinstance(upstream, Address):
        from tvix_build.builders import Limits, SandboxBuilder, UnavailableError

        try:
            return nullcontext(SandboxBuilder(castore, limits=Limits(**limits)))
        except UnavailableError as error:
            raise click.ClickException(str(error)) from None
    from tvix_build.builders.reapi import Property, ReapiBuilder

    made = [Property(*one) for one in properties]
    return ReapiBuilder(upstream.text, castore, credentials=credentials, properties=made)
