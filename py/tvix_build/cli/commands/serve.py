# SPDX-License-Identifier: MIT
"""The command `serve`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvix_build._core.report import Schema
from tvix_build.cli.configured import ConfiguredCommand
from tvix_build.cli.connections import FILE, parse_address, parse_builders
from tvix_build.cli.options import (
    PATH,
    SECONDS,
    directory_sizes_option,
    limit_options,
    property_option,
)
from tvix_build.cli.serving_options import connection_options, memory_options
from tvix_build.proxy.shared.addresses import FORMS

if TYPE_CHECKING:
    from tvix_build.proxy.shared.services import Service


def _parse_host_and_port(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(?P<host>[^:\s]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})", value, re.ASCII)
    if match is None or int(match["port"]) > 65535:
        raise click.BadParameter(f"expected HOST:PORT, found {value!r}")
    return match["host"].strip("[]"), int(match["port"])


def _parse_names(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch("[0-9a-z_.-]+", value):
            raise click.BadParameter(
                f"expected the name of metadata in lower case, found {value!r}"
            )
    return values


def _parse_keys(
    context: click.Context, option: click.Parameter, value: str | None
) -> Path | str | None:
    if value is None or re.match("https?://", value):
        return value
    found: Path = FILE.convert(value, option, context)
    return found


def _parse_services(
    context: click.Context, _option: click.Parameter, value: tuple[str, ...]
) -> list[Service]:
    if context.resilient_parsing:  # completion
        return []
    from tvix_build.proxy.shared.services import SERVICES

    services = [SERVICES[schema] for schema in dict.fromkeys(value)]
    for i, service in enumerate(services):
        for other in services[:i]:
            if other.name == service.name:
                raise click.BadParameter(
                    f"expected one schema for {service.name}, found {other.label} and "
                    f"{service.label}"
                )
    return services


@click.command(cls=ConfiguredCommand, verbosity=False)
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
    "upstreams",
    metavar="ADDRESS",
    multiple=True,
    callback=parse_builders,
    help="Address of the builder, in the same forms, 'sandbox:' on this machine, or a Remote "
    "Execution engine at reapi+grpc://HOST:PORT/INSTANCE (with TLS reapi+grpcs://…); repeatable "
    "for several builders at addresses.",
)
@click.option(
    "--upstream-timeout",
    metavar="SECONDS",
    type=SECONDS,
    help="Time limit of a call to a builder; the default is that of the caller.",
)
@click.option(
    "--check-interval",
    metavar="SECONDS",
    type=SECONDS,
    default=10,
    show_default=True,
    help="Time between two health checks of a builder.",
)
@click.option(
    "--independent-health",
    is_flag=True,
    help="Be healthy even if no builder of a schema is.",
)
@click.option(
    "--castore",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Also offer the castore services, with this castore store. The sandbox and Remote "
    "Execution need it for inputs, outputs and logs.",
)
@click.option(
    "--castore-upstream",
    metavar="ADDRESS",
    callback=parse_address,
    help="Server behind the castore store: objects that the store lacks are read from it, and new "
    "ones are also written to it.",
)
@directory_sizes_option
@limit_options
@property_option
@click.option(
    "--plans",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Also offer PlanService, and keep plans and their outcomes in this directory; requires "
    "--upstream sandbox: or reapi+grpc://….",
)
@click.option(
    "--max-plan-builds",
    metavar="N",
    type=click.IntRange(1),
    help="With --plans: limit of concurrent builds of all plans; by default, the number of CPUs.",
)
@click.option(
    "--max-plans",
    metavar="N",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="With --plans: limit of running plans; further ones wait in the order of their start.",
)
@click.option(
    "--max-plan-calls",
    metavar="N",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="With --plans: limit of concurrent calls, including those that watch plans; further ones "
    "are rejected.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of processes that listen on the addresses, which must be grpc+http or grpc+https. "
    "They share the limits of calls, connections and memory.",
)
@click.option("--check-only", is_flag=True, help="Validate only: valid requests get UNIMPLEMENTED.")
@click.option(
    "--schema",
    "services",
    type=click.Choice([*(schema.value for schema in Schema), "snix.build.v1@2026"]),
    multiple=True,
    default=[Schema.TVIX_BUILD_V1.value, Schema.SNIX_BUILD_V1.value],
    show_default=True,
    callback=_parse_services,
    help="Schema of a service to offer; repeatable. Responses of snix.build.v1@2026 are streams.",
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
@memory_options
@connection_options
@click.option(
    "--max-castore-calls",
    metavar="N",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="With --castore: limit of concurrent calls; further ones are rejected.",
)
@click.option(
    "--max-upload-size",
    metavar="BYTES",
    type=click.IntRange(1),
    default=64 << 30,
    show_default=True,
    help="With --castore and --plans: limit of an upload.",
)
@click.option(
    "--deduplicate", is_flag=True, help="Run one build for concurrent calls with the same digest."
)
@click.option(
    "--deduplicate-by",
    metavar="NAME",
    multiple=True,
    callback=_parse_names,
    help="With --deduplicate: metadata that must be equal, in addition to authorization; "
    "repeatable.",
)
@click.option(
    "--shared-metadata",
    metavar="NAME",
    multiple=True,
    callback=_parse_names,
    help="With --deduplicate: metadata of a response that all callers get; repeatable.",
)
@click.option(
    "--forward-metadata",
    "forwarded_metadata",
    metavar="NAME",
    multiple=True,
    callback=_parse_names,
    help="Metadata that the builder receives; repeatable. The default is all metadata.",
)
@click.option(
    "--store",
    metavar="STORE",
    type=PATH,
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
    "--tls-client-name",
    "tls_client_names",
    metavar="PATTERN",
    multiple=True,
    help="Require a client certificate with an alternative name such as *.example.org or "
    "spiffe://example.org/builds/*; repeatable. '*' matches characters other than '.' and '/'.",
)
@click.option(
    "--jwt-keys",
    metavar="FILE|URL",
    callback=_parse_keys,
    help="Require bearer tokens, and verify them with this public key in PEM or JSON Web Key Set, "
    "or with the set at this URL (https, or http on this machine).",
)
@click.option("--jwt-audience", metavar="NAME", help="Required aud of tokens.")
@click.option("--jwt-issuer", metavar="NAME", help="Required iss of tokens.")
@click.option(
    "--max-rate",
    metavar="CALLS",
    type=click.FloatRange(0, min_open=True),
    help="Limit of calls per second of a caller: a name of a certificate or token, or a host.",
)
@click.option(
    "--max-burst",
    metavar="CALLS",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="With --max-rate: calls that a caller may make at once.",
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
    "--audit",
    metavar="FILE",
    type=PATH,
    help="Append a JSON line to this file for each call whose request is valid: caller, digest, "
    "schema and status.",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=SECONDS,
    default=30,
    show_default=True,
    help="How long running calls may continue after SIGTERM.",
)
@click.option(
    "--drain-delay",
    metavar="SECONDS",
    type=SECONDS,
    default=0,
    show_default=True,
    help="How long calls are still accepted after SIGTERM, for load balancers that watch health.",
)
def serve(**options: Any) -> int:
    """Run a gRPC server that validates build requests. It rejects invalid requests with their
    violations, forwards valid ones to --upstream in canonical encoding, and validates responses.

    \b
    Examples:
      tvix-build serve --listen grpc+unix:/run/proxy.sock --upstream grpc+unix:/run/builder.sock
      tvix-build serve --upstream sandbox: --castore store
      tvix-build serve --upstream reapi+grpc://host:8980/main --castore store
      tvix-build serve --upstream sandbox: --castore store --plans plans
      tvix-build serve --check-only

    The log is on stderr, one JSON object per line. After SIGTERM, the proxy rejects new calls and
    waits for the running ones. Exit status: 0 after a shutdown, 2 if the proxy cannot start.
    """
    from tvix_build.cli.serve import run

    return run(**options)
