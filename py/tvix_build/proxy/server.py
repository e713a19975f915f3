# SPDX-License-Identifier: MIT
"""Assembles the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider

from tvix_build.castore import CastoreStore
from tvix_build.proxy.balancing import Balancer
from tvix_build.proxy.builder_protocol import Builder
from tvix_build.proxy.callers import Callers, Certificates
from tvix_build.proxy.castore import CastoreServices
from tvix_build.proxy.certificate import Certificate
from tvix_build.proxy.deduplication import Deduplicator
from tvix_build.proxy.limits import BuildLimit, CallLimit
from tvix_build.proxy.line_writer import LineWriter
from tvix_build.proxy.listening import ServeError, bind, fitting
from tvix_build.proxy.logs import audit, log_call, log_castore_call, log_plan_call
from tvix_build.proxy.metrics import Metrics
from tvix_build.proxy.metrics_server import MetricsServer
from tvix_build.proxy.open_calls import OpenCalls
from tvix_build.proxy.outcomes import Observer
from tvix_build.proxy.plan_runs import PlanOptions, PlanRuns
from tvix_build.proxy.plans import MODULE as PLAN_MODULE
from tvix_build.proxy.plans import NAME as PLAN_NAME
from tvix_build.proxy.plans import PlanService
from tvix_build.proxy.rates import Rates
from tvix_build.proxy.receiving import Receiver
from tvix_build.proxy.recording import Recorder
from tvix_build.proxy.reflecting import add_reflection
from tvix_build.proxy.response_checks import ResponseChecker
from tvix_build.proxy.service import ProxyService
from tvix_build.proxy.service_calls import ServiceCalls
from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.shared.channels import (
    MAX_MESSAGE_SIZE,
    Connections,
    Memory,
    server_options,
)
from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.status import shutting_down
from tvix_build.proxy.tracing import BuildTracer, CallTracer, tracer_of
from tvix_build.proxy.upstream import CheckOnly, Upstream
from tvix_build.store import RequestStore

if TYPE_CHECKING:
    from tvix_build.proxy.remote_keys import RemoteKeys
    from tvix_build.proxy.tokens import Tokens

_STATUS = {
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
    True: health_pb2.HealthCheckResponse.SERVING,
}
_QUIET_SECONDS = 2.0
"""How long clients that do not stop may delay the shutdown."""
_ENDING_SECONDS = 5.0
"""How long calls may take to end."""


@dataclass(frozen=True)
class Options:
    """The options of the proxy.

    Attributes:
        listen: the addresses to listen on.
        services: the services to offer; each name at most once.
        upstreams: the addresses of the builders; none to validate only.
        certificate, upstream_credentials: of the proxy, and for the builders, for `grpc+https`
            addresses.
        upstream_timeout: the limit of a call to a builder in seconds; None for no limit.
        check_interval: the seconds between two health checks of a builder.
        independent_health: whether the proxy is healthy even if no builder is.
        max_message_size: the largest request and the largest response to accept, in bytes.
        max_builds: the limit of concurrent builds.
        max_queue: the limit of calls that wait for a build to start.
        connections: the limits of connections.
        memory: the limits of messages in memory.
        deduplicate: whether concurrent calls with the same digest share one build.
        deduplicate_by: the names of metadata that must be equal in such calls, in addition to
            `authorization`.
        shared_metadata: the names of metadata in responses that all such calls get.
        forwarded_metadata: the names of the metadata that the builder receives; None for all.
        certificates: how client certificates identify callers; None without them.
        tokens: how tokens identify callers; None if they need no token.
        max_rate: the limit of calls per second of a caller; None for no limit.
        max_burst: the calls that a caller may make at once.
        drain_delay: the seconds for which the proxy still accepts calls after a signal, while its
            health is NOT_SERVING.
        store: the path of the request store; None to store nothing.
        castore: the store of the castore services, which have the families of the schemas of
            `services`; None to offer none.
        max_castore_calls: the limit of concurrent calls of the castore services.
        max_upload_size: the limit of an upload to the castore services, in bytes.
        plans: how the plans of PlanService run, which needs `castore`; None to offer none.
        max_plan_calls: the limit of concurrent calls of PlanService.
        metrics: the host and port to serve metrics on.
        log: the writer of the log, whose dropped lines are counted.
        audit: the writer of a line for each call whose request is valid.
        traces: the tracer provider; the proxy shuts it down when it stops.
        is_worker: whether the process is one of several that listen on the same ports. It counts
            metrics, but does not serve them.
    """

    listen: Sequence[Address]
    services: Sequence[Service]
    upstreams: Sequence[Address] = ()
    certificate: Certificate | None = None
    upstream_credentials: grpc.ChannelCredentials | None = None
    upstream_timeout: float | None = None
    check_interval: float = 10.0
    independent_health: bool = False
    max_message_size: int = MAX_MESSAGE_SIZE
    max_builds: int = 256
    max_queue: int = 1024
    connections: Connections = field(default_factory=Connections)
    memory: Memory = field(default_factory=Memory)
    deduplicate: bool = False
    deduplicate_by: Sequence[str] = ()
    shared_metadata: Sequence[str] = ()
    forwarded_metadata: Sequence[str] | None = None
    certificates: Certificates | None = None
    tokens: Tokens | None = None
    max_rate: float | None = None
    max_burst: int = 100
    drain_delay: float = 0.0
    store: str | None = None
    castore: CastoreStore | None = None
    max_castore_calls: int = 256
    max_upload_size: int = 64 << 30
    plans: PlanOptions | None = None
    max_plan_calls: int = 256
    metrics: tuple[str, int] | None = None
    log: LineWriter | None = None
    audit: LineWriter | None = None
    traces: TracerProvider | None = None
    is_worker: bool = False


class Server:
    """A proxy that serves from `start` to `close`, both within one event loop.

    Args:
        options: the options of the proxy.
        builder: the builder to use in place of `options.upstreams`.

    Attributes:
        addresses: the addresses it listens on, with the bound ports.
        max_connections: the limit of connections to an address.
        metrics: the metrics; None without `options.metrics`.
        metrics_port: the port that serves metrics.
        observers: are called with the outcome of each call.
        numbers: functions that return the current values, by the names of the metrics.
    """

    def __init__(self, options: Options, builder: Builder | None = None) -> None:
        self._options = options
        self._builder = builder or CheckOnly()
        self._stack = AsyncExitStack()
        self._health = health.aio.HealthServicer()
        self._calls = OpenCalls()
        self._hurry = asyncio.Event()
        self._plans: PlanRuns | None = None
        self._tracer: CallTracer | None = None
        self.addresses: list[str] = []
        self.max_connections: int = 0
        self.metrics: Metrics | None = None
        self.metrics_port: int | None = None
        self.numbers: dict[str, Callable[[], float]] = {}
        self.observers: list[Observer] = [log_call]

    async def start(self) -> None:
        """Start to serve.

        Raises:
            ServeError: if an address cannot be bound, or the limits contradict each other.
            StoreError: if the store cannot be opened.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        options = self._options
        if options.memory.max_buffered < options.max_message_size:
            raise ServeError(
                f"expected a limit of messages in memory of at least {options.max_message_size} "
                f"bytes, the largest message, found {options.memory.max_buffered}"
            )
        builder = self._builder
        if options.upstreams:
            builder = await self._balancer()
        if options.traces is not None:
            self._stack.callback(options.traces.shutdown)
            tracer = tracer_of(options.traces)
            self._tracer = CallTracer(tracer)
            builder = BuildTracer(builder, tracer)
        builder = self._wrapped(builder)
        observers = self.observers
        self._castore_observers = [log_castore_call]
        self._plan_observers = [log_plan_call]
        if options.log is not None:
            log = options.log
            self.numbers["dropped_log_lines_total"] = lambda: log.dropped
        if options.audit is not None:
            audited = options.audit
            observers.append(audit(audited))
            self.numbers["dropped_audit_lines_total"] = lambda: audited.dropped
        if options.metrics is not None:
            self.metrics = metrics = Metrics(self.numbers)
            observers.append(metrics.observe)
            self._castore_observers.append(metrics.observe_castore)
            self._plan_observers.append(metrics.observe_plans)
            if not options.is_worker:
                await self._serve_metrics(metrics)
        receiver = Receiver(options.memory, options.max_message_size)
        self.numbers["buffered_bytes"] = lambda: receiver.bytes.held
        self._receiver = receiver
        self._callers = _callers(options)
        if options.tokens is not None and options.tokens.remote is not None:
            await self._fetch_keys(options.tokens.remote)
        self._services = [
            ProxyService(
                service,
                builder,
                observers,
                self._calls,
                receiver,
                lambda *one: self._callers.admit(*one),
                options.forwarded_metadata,
                self._tracer.call if self._tracer else None,
            )
            for service in options.services
        ]
        await self._listen()

    async def _fetch_keys(self, keys: RemoteKeys) -> None:
        """Fetch the keys of tokens now, and again until the end."""
        try:
            await keys.fetch()
        except ValueError as error:
            raise ServeError(str(error)) from None
        fetching = asyncio.create_task(keys.run())
        self._stack.callback(fetching.cancel)

    async def _balancer(self) -> Builder:
        options = self._options
        upstreams = []
        for address in options.upstreams:
            upstream = Upstream(
                address,
                options.upstream_credentials if address.tls else None,
                options.max_message_size,
                options.upstream_timeout,
            )
            self._stack.push_async_callback(upstream.close)
            await upstream.connect()
            upstreams.append(upstream)
        balancer = Balancer(upstreams, options.services, options.check_interval, self._set_health)
        balancer.start()
        self._stack.push_async_callback(balancer.close)
        self.numbers["healthy_builders"] = lambda: balancer.healthy
        return balancer

    async def _set_health(self, service: Service, serving: bool) -> None:
        """Change the health of a service to that of its builders."""
        if not self._options.independent_health:
            await self._health.set(service.name, _STATUS[serving])

    def _wrapped(self, builder: Builder) -> Builder:
        """Wrap the builder in limits, response checks, and optional recording and deduplication."""
        options = self._options
        builds = BuildLimit(ResponseChecker(builder), options.max_builds)
        self._builds = builds
        self.numbers["builds"] = lambda: builds.shares.held
        self.numbers["waiting_calls"] = lambda: builds.shares.waiting
        builder = builds
        if options.store is not None:
            store = RequestStore(options.store)
            self._stack.callback(store.close)
            builder = Recorder(builder, store)
        if options.deduplicate:
            builder = deduplicator = Deduplicator(
                builder, options.deduplicate_by, options.shared_metadata
            )
            self.numbers["deduplicated_calls_total"] = lambda: deduplicator.joined
        calls = CallLimit(builder, options.max_builds + options.max_queue, builds.shares)
        self._call_limit = calls
        self.numbers["open_calls"] = lambda: calls.calls
        return calls

    async def _serve_metrics(self, metrics: Metrics) -> None:
        assert self._options.metrics
        server = MetricsServer(metrics.registry)
        await server.start(*self._options.metrics)
        self._stack.push_async_callback(server.close)
        self.metrics_port = server.port

    async def _listen(self) -> None:
        options = self._options
        connections = fitting(options.connections, len(options.listen))
        self.max_connections = connections.max_connections
        self._server = server = grpc.aio.server(
            options=server_options(options.max_message_size, connections, options.is_worker)
        )
        server.add_generic_rpc_handlers([service.handler() for service in self._services])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.name for service in options.services]
        modules = [service.module for service in options.services if service.module is not None]
        if options.castore is not None:
            calls = ServiceCalls(
                self._calls,
                self._castore_observers,
                options.max_castore_calls,
                options.max_upload_size,
                lambda *one: self._callers.identify(*one),
                self._tracer.service_call if self._tracer else None,
            )
            self.numbers["open_castore_calls"] = lambda: calls.calls
            castore = CastoreServices(options.castore, calls)
            self._stack.callback(castore.close)
            families = {service.castore: None for service in options.services}
            for family in families:
                server.add_generic_rpc_handlers(castore.handlers(family))
                names += castore.names(family)
                modules.append(castore.module(family))
        if options.plans is not None:
            server.add_generic_rpc_handlers(self._plan_service(options.plans).handlers())
            names.append(PLAN_NAME)
            modules.append(PLAN_MODULE)
        streams = {service.name for service in options.services if service.streams}
        add_reflection(server, [*names, health.SERVICE_NAME], modules, streams)
        certificate = options.certificate
        make_credentials = certificate.credentials if certificate else None
        for address in options.listen:
            self.addresses.append(bind(server, address, make_credentials))
        await server.start()
        if self._plans is not None:
            self._plans.resume()
        for name in names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def _plan_service(self, options: PlanOptions) -> PlanService:
        assert self._options.castore is not None
        self._plans = plans = PlanRuns(options, self._options.castore)
        self._stack.push_async_callback(plans.close)
        calls = ServiceCalls(
            self._calls,
            self._plan_observers,
            self._options.max_plan_calls,
            self._options.max_upload_size,
            lambda *one: self._callers.admit(*one),
            self._tracer.service_call if self._tracer else None,
        )
        self.numbers["open_plan_calls"] = lambda: calls.calls
        self.numbers["running_plans"] = lambda: plans.running
        self.numbers["waiting_plans"] = lambda: plans.waiting
        service = PlanService(plans, calls)
        self._stack.callback(service.close)
        return service

    def reload(self, options: Options) -> None:
        """Use the certificate, the names, tokens and rates of callers, and the limits of builds,
        calls and memory of other options. Calls in progress continue.

        Raises:
            ValueError: if tokens have keys at another URL; then nothing changes.
        """
        if options.tokens is not None:
            options.tokens.follow(self._options.tokens)
        if self._options.certificate is not None and options.certificate is not None:
            self._options.certificate.replace(options.certificate)
        self._callers = _callers(options)
        self._receiver.resize(options.memory)
        self._builds.shares.resize(options.max_builds)
        self._call_limit.limit = options.max_builds + options.max_queue

    async def close(self, grace: float | None) -> None:
        """Reject new calls and wait for the running ones, which end after `grace` seconds. A later
        call without `grace` ends them at once."""
        # Health watchers that do not read must not block it.
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._health.enter_graceful_shutdown(), 1)
        if grace is None:
            self._hurry.set()
        else:
            hurry = asyncio.create_task(self._hurry.wait())
            await asyncio.wait([hurry], timeout=self._options.drain_delay)
            hurry.cancel()
        self._calls.refusing = True
        if self._plans is not None:
            self._plans.end_watches()
        stopping = asyncio.create_task(self._stop(grace or 0))
        idle = asyncio.create_task(self._calls.wait_until_idle())
        await asyncio.wait([idle], timeout=grace or 0)
        if not idle.done():
            self._calls.end_all(shutting_down())
            await asyncio.wait([idle], timeout=_ENDING_SECONDS)
        idle.cancel()
        await self._calls.wait_until_quiet(_QUIET_SECONDS)
        # Health watchers would keep their calls open.
        await self._server.stop(None)
        await stopping

    async def _stop(self, grace: float) -> None:
        """Tell the clients to connect elsewhere. gRPC cancels the calls that it has received, but
        not yet passed to this process, so these come first."""
        await self._calls.wait_until_quiet(min(grace, _QUIET_SECONDS))
        await self._server.stop(grace + _ENDING_SECONDS)

    async def free(self) -> None:
        """Release the resources of the server."""
        await self._stack.aclose()


def _callers(options: Options) -> Callers:
    rates = Rates(options.max_rate, options.max_burst) if options.max_rate else None
    return Callers(options.certificates, options.tokens, rates)
