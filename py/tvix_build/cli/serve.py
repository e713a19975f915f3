# SPDX-License-Identifier: MIT
"""The command `serve`: parses the options. The proxy itself is `tvix_build.proxy.server`, which is
imported late, as it needs packages of the extra `serve`."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvix_build import Schema
from tvix_build.cli.configured import OPTIONS, command_arguments, reload_options
from tvix_build.cli.connections import (
    SANDBOX,
    client_credentials,
    server_certificate,
)
from tvix_build.cli.extras import extra
from tvix_build.cli.options import are_of_sandbox
from tvix_build.cli.terminal import Monitor
from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.shared.services import Service

if TYPE_CHECKING:
    import grpc

    from tvix_build.builders import Builder
    from tvix_build.builders.reapi.address import Address as ReapiAddress
    from tvix_build.castore import CastoreStore
    from tvix_build.proxy.line_writer import LineWriter
    from tvix_build.proxy.plan_runs import PlanOptions
    from tvix_build.proxy.server import Options
    from tvix_build.proxy.tokens import Tokens
    from tvix_build.proxy.worker import Place

_RELEASE_SECONDS = 2.0
"""How long stores and threads may take to end when all calls have ended."""


@dataclass(frozen=True)
class Local:
    """The options of what runs in this process: the castore store, and the sandbox or the client of
    an engine.

    Attributes:
        builder: the sandbox or the engine; None for neither.
        castore: the directory of the castore store; None for no store.
        castore_upstream: the server behind the store, or None.
        directory_sizes: the sizes of Directories that the store accepts.
        limits: the limits of builds, with an engine only that of the log.
        properties: the platform properties of actions on the engine.
        services: the services of the proxy.
        plans: the directory of PlanService; None to offer none.
        max_plan_builds: the limit of concurrent builds of all plans; None for the number of CPUs.
        max_plans: the limit of running plans.
    """

    builder: Address | ReapiAddress | None
    castore: str | None
    castore_upstream: Address | None
    directory_sizes: str
    limits: Mapping[str, int]
    properties: Sequence[tuple[str, str, str | None]]
    services: Sequence[Service]
    plans: str | None
    max_plan_builds: int | None
    max_plans: int

    def check(self) -> None:
        """Raise click.UsageError if options contradict each other."""
        if self.builder is not None and self.castore is None:
            raise click.UsageError(f"expected --castore with --upstream {self.builder.text}")
        if self.castore is None and (
            self.castore_upstream is not None or self.directory_sizes != "specified"
        ):
            raise click.UsageError(
                "expected --castore with --castore-upstream and --directory-sizes"
            )
        if self.limits and self.builder is None:
            raise click.UsageError("expected --upstream sandbox: with limits of builds")
        if are_of_sandbox(self.limits) and self.builder is not SANDBOX:
            raise click.UsageError(
                "expected --upstream sandbox: with limits of builds other than --max-log-size"
            )
        if self.properties and self.builder in (None, SANDBOX):
            raise click.UsageError("expected --upstream reapi+grpc://… with --property")
        if self.plans is not None and self.builder is None:
            raise click.UsageError("expected --upstream sandbox: or reapi+grpc://… with --plans")
        if self.plans is None and self.max_plan_builds is not None:
            raise click.UsageError("expected --plans with --max-plan-builds")

    def open_castore(self, stack: ExitStack) -> CastoreStore | None:
        """Open the castore store, until the stack ends. Of the server behind it, the services of
        snix are called, unless the proxy has only those of tvix."""
        if self.castore is None:
            return None
        from tvix_build.castore import CastoreStore

        sizes = self.directory_sizes
        if self.castore_upstream is None:
            return stack.enter_context(CastoreStore(self.castore, directory_sizes=sizes))
        from tvix_build.castore.backed import BackedStore
        from tvix_build.castore.client import CastoreClient

        schemas = [service.schema for service in self.services]
        schema = Schema.SNIX_BUILD_V1 if Schema.SNIX_BUILD_V1 in schemas else schemas[0]
        client = stack.enter_context(CastoreClient(self.castore_upstream.text, schema=schema))
        return stack.enter_context(BackedStore(self.castore, client, directory_sizes=sizes))

    def open_builder(
        self,
        stack: ExitStack,
        castore: CastoreStore,
        credentials: grpc.ChannelCredentials | None,
    ) -> Builder | None:
        """Open the sandbox, or the builder that runs requests on the engine, until the stack ends.

        Raises:
            click.ClickException: if this machine has no sandbox.
        """
        if self.builder is None:
            return None
        from tvix_build.cli.opening import open_builder

        builder = open_builder(
            self.builder,
            castore,
            limits=self.limits,
            credentials=credentials,
            properties=self.properties,
        )
        return stack.enter_context(builder)

    def plan_options(self, builder: Builder) -> PlanOptions | None:
        """Return the options of PlanService, with the builder that `open_builder` returned."""
        from tvix_build.proxy.plan_runs import PlanOptions

        if self.plans is None or self.builder is None:
            return None
        builds = self.max_plan_builds or os.cpu_count() or 1
        return PlanOptions(self.plans, builder, self.builder.text, builds, self.max_plans)


def run(
    upstreams: Sequence[Address | ReapiAddress],
    check_only: bool,
    services: Sequence[Service],
    castore: str | None,
    castore_upstream: Address | None,
    directory_sizes: str,
    limits: Mapping[str, int],
    properties: Sequence[tuple[str, str, str | None]],
    plans: str | None,
    max_plan_builds: int | None,
    max_plans: int,
    check_config: bool,
    traces: str | None,
    audit: str | None,
    log_level: str,
    grace: float,
    workers: int,
    **others: Any,
) -> int:
    """Run the command, and return its exit status."""
    servers = [one for one in upstreams if isinstance(one, Address) and one is not SANDBOX]
    builder = next((one for one in upstreams if one not in servers), None)
    if builder is not None and len(upstreams) > 1:
        raise click.UsageError(f"expected --upstream {builder.text} without other builders")
    if check_only == bool(upstreams):
        raise click.UsageError("expected one of --upstream and --check-only")
    local = Local(
        builder,
        castore,
        castore_upstream,
        directory_sizes,
        limits,
        properties,
        services,
        plans,
        max_plan_builds,
        max_plans,
    )
    local.check()
    tls = next((one for one in upstreams if one.tls), None)
    options = _make_options(services=services, servers=servers, tls_upstream=tls, **others)
    if workers > 1:
        _check_workers(options, workers, plans)
    if traces is not None:
        _check_traces()
    _check_sockets()
    if check_config:
        click.get_current_context().meta[OPTIONS] = options
        return 0
    from tvix_build.proxy.worker import take_place

    place = take_place()
    if workers > 1 and place is None:
        return _supervise(options, workers, log_level, grace)
    return _serve(options, local, traces, audit, log_level, grace, place)


def _make_options(
    listen: Sequence[Address],
    services: Sequence[Service],
    servers: Sequence[Address],
    tls_upstream: Address | ReapiAddress | None,
    store: str | None,
    deduplicate: bool,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    tls_client_names: Sequence[str],
    forwarded_metadata: Sequence[str],
    jwt_keys: Path | str | None,
    jwt_audience: str | None,
    jwt_issuer: str | None,
    upstream_ca: Path | None,
    upstream_certificate: Path | None,
    upstream_key: Path | None,
    **others: Any,
) -> Options:
    """Return the options of the proxy that can be read again while it runs.

    Raises:
        click.ClickException: if options contradict each other, or files are invalid.
    """
    _check_store(store, services)
    _check_deduplication(deduplicate, services)
    if tls_client_names and not tls_client_ca:
        raise click.UsageError("expected --tls-client-ca with --tls-client-name")
    with extra("serve"):
        from tvix_build.proxy.callers import Certificates
        from tvix_build.proxy.server import Options
    return Options(
        listen,
        services,
        servers,
        server_certificate(listen, tls_certificate, tls_key, tls_client_ca),
        client_credentials(
            tls_upstream, upstream_ca, upstream_certificate, upstream_key, prefix="upstream-"
        ),
        store=store,
        deduplicate=deduplicate,
        forwarded_metadata=forwarded_metadata or None,
        certificates=Certificates(tls_client_names) if tls_client_ca else None,
        tokens=_tokens(jwt_keys, jwt_audience, jwt_issuer),
        **others,
    )


def _check_store(store: str | None, services: Sequence[Service]) -> None:
    for service in services:
        if store is not None and service.schema is not Schema.TVIX_BUILD_V1:
            raise click.UsageError(
                f"expected --schema tvix.build.v1 only: --store keeps requests of no other "
                f"schema; found {service.label}"
            )


def _check_deduplication(deduplicate: bool, services: Sequence[Service]) -> None:
    for service in services:
        if deduplicate and service.streams:
            raise click.UsageError(
                f"expected --deduplicate without --schema {service.label}: calls do not share a "
                f"stream of updates"
            )


def _tokens(keys: Path | str | None, audience: str | None, issuer: str | None) -> Tokens | None:
    """Return how tokens identify callers; None if they need no token.

    Raises:
        click.ClickException: if PyJWT is not installed, the file has no keys, or the URL has a
            wrong form.
    """
    if keys is None:
        if audience or issuer:
            raise click.UsageError("expected --jwt-keys with --jwt-audience and --jwt-issuer")
        return None
    with extra("jwt"):
        from tvix_build.proxy.tokens import Tokens
    try:
        return Tokens(keys, audience, issuer)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _serve(
    options: Options,
    local: Local,
    traces: str | None,
    audit: str | None,
    log_level: str,
    grace: float,
    place: Place | None,
) -> int:
    """Serve until a signal, and return the exit status of the command."""
    from tvix_build.proxy import listening, logs, running
    from tvix_build.proxy.castore_builder import CastoreBuilder
    from tvix_build.proxy.free_memory import returning_free_memory
    from tvix_build.proxy.tracing import exporting_provider
    from tvix_build.proxy.worker import Worker

    provider = None if traces is None else exporting_provider(traces)
    log = logs.configure(log_level, place.number if place else None)
    read_options, control = reload_options(), None
    if place is not None:
        options, read_options = place.share(options), place.sharing(read_options)
        control = Worker(place)
    try:
        with ExitStack() as stack:
            stack.enter_context(closing(log))
            limit_release = stack.enter_context(_limited_release(log))
            stack.enter_context(returning_free_memory())
            audited = stack.enter_context(_open_audit(audit))
            castore = local.open_castore(stack)
            builder = None
            if castore is not None:
                engine = local.open_builder(stack, castore, options.upstream_credentials)
                if engine is not None:
                    builder = CastoreBuilder(engine)
                    options = replace(options, plans=local.plan_options(engine))
            options = replace(options, castore=castore, log=log, audit=audited, traces=provider)
            _run(running.run(options, grace, builder, read_options, control, limit_release))
    except listening.ServeError as error:
        Monitor().error(error)
        return 2
    return 0


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in the event loop of uvloop, which needs less CPU time than asyncio's own."""
    try:
        from uvloop import run
    except ImportError:  # There is none for Windows, and the one of Debian 12 has no `run`.
        asyncio.run(coroutine)
    else:
        run(coroutine)


@contextmanager
def _limited_release(log: LineWriter) -> Iterator[Callable[[], None]]:
    """Yield a function that ends the process some seconds later, unless the context ends before. A
    thread may wait for a store that another process has locked, and Python waits for threads."""

    def end() -> None:
        from tvix_build.proxy.logs import LOG

        LOG.warning(
            "stopped",
            extra={"fields": {"reason": "a store is locked, or a server does not respond"}},
        )
        log.close()
        os._exit(0)

    timer = threading.Timer(_RELEASE_SECONDS, end)
    timer.daemon = True
    try:
        yield timer.start
    finally:
        timer.cancel()


def _supervise(options: Options, workers: int, log_level: str, grace: float) -> int:
    """Run workers until a signal, and return the exit status of the command."""
    from tvix_build.proxy import listening, logs
    from tvix_build.proxy.supervisor import Supervised, Supervisor

    with closing(logs.configure(log_level)):
        supervised = Supervised(
            command_arguments(),
            workers,
            options.listen,
            options.metrics,
            grace,
            options.drain_delay,
        )

        async def run() -> int:
            return await Supervisor(supervised).run()

        try:
            return asyncio.run(run())
        except listening.ServeError as error:
            Monitor().error(error)
            return 2


def _check_workers(options: Options, workers: int, plans: str | None) -> None:
    """Raise click.UsageError if several processes cannot do what options say."""
    if plans is not None:
        raise click.UsageError("expected one worker with --plans: one process runs all plans")
    needed, found = workers * options.max_message_size, options.memory.max_buffered
    if found < needed:
        raise click.UsageError(
            f"expected --max-buffered {needed} or more, found {found}: each of {workers} workers "
            "needs room for the largest message"
        )
    for address in options.listen:
        if address.path:
            raise click.UsageError(
                f"expected grpc+http or grpc+https addresses with --workers, found {address.text}: "
                "processes cannot share a unix socket"
            )


def _check_sockets() -> None:
    """Raise click.UsageError if systemd passes sockets, which gRPC cannot use."""
    from tvix_build.proxy.systemd import has_sockets

    if has_sockets():
        raise click.UsageError(
            "expected no sockets from systemd, which gRPC cannot use: remove the .socket unit, or "
            "listen with systemd-socket-proxyd in front of --listen grpc+unix:/PATH"
        )


def _check_traces() -> None:
    """Raise click.ClickException if the package that exports traces is not installed."""
    try:
        import opentelemetry.exporter.otlp.proto.grpc.trace_exporter  # noqa: F401
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"--traces needs {error.name}: pip install opentelemetry-exporter-otlp-proto-grpc"
        ) from None


@contextmanager
def _open_audit(path: str | None) -> Iterator[LineWriter | None]:
    """Open the audit log; None without a path."""
    if path is None:
        yield None
        return
    from tvix_build.proxy.line_writer import LineWriter

    with open(path, "ab", buffering=0) as file, closing(LineWriter(file.fileno())) as writer:
        yield writer
