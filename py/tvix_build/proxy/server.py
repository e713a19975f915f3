# SPDX-License-Identifier: MIT
"""Puts the door together and runs it until a signal."""

from __future__ import annotations

import asyncio
import importlib
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIServer

import grpc
import grpc.aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import start_http_server

from tvix_build.proxy.builder_protocol import Builder
from tvix_build.proxy.deduplication import Shared
from tvix_build.proxy.limits import BuildLimit, CallLimit
from tvix_build.proxy.logs import LOG, log_call
from tvix_build.proxy.metrics import Metrics
from tvix_build.proxy.recording import Recorded
from tvix_build.proxy.response_checks import CheckedAnswers
from tvix_build.proxy.service import Door
from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.shared.channels import MAX_MESSAGE_SIZE, server_options
from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.tracing import TracedBuilds, Traces, tracer_of
from tvix_build.proxy.upstream import CheckOnly, Upstream
from tvix_build.store import RequestStore


class ServeError(Exception):
    """The door cannot be opened."""


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        listen: where to listen.
        services: those to offer, each with another name.
        upstream: who builds; None for nobody.
        credentials, upstream_credentials: of TLS, where an address says so.
        max_message_size: bytes of a request, and of an answer.
        max_builds, max_queue: how many calls build at once, and how many may wait besides.
        deduplicate: whether calls in flight with one digest share a build.
        store: path of the request store.
        metrics: host and port for Prometheus.
        traces: the provider of traces; it is shut down with the door.
    """

    listen: Sequence[Address]
    services: Sequence[Service]
    upstream: Address | None = None
    credentials: grpc.ServerCredentials | None = None
    upstream_credentials: grpc.ChannelCredentials | None = None
    max_message_size: int = MAX_MESSAGE_SIZE
    max_builds: int = 256
    max_queue: int = 1024
    deduplicate: bool = False
    store: str | None = None
    metrics: tuple[str, int] | None = None
    traces: TracerProvider | None = None


class Server:
    """A door that is open from `start` to `close`, both within one event loop.

    Args:
        options: what the command line says.
        builder: who builds, instead of the upstream.

    Attributes:
        addresses: where it listens, with the ports that were bound.
        metrics_port: where Prometheus finds it.
        numbers: what there is at the moment, by the names that metrics have.
    """

    def __init__(self, options: Options, builder: Builder | None = None) -> None:
        self._options = options
        self._builder = builder or CheckOnly()
        self._stack = AsyncExitStack()
        self._health = health.aio.HealthServicer()
        self.addresses: list[str] = []
        self.metrics_port: int | None = None
        self.numbers: dict[str, Callable[[], float]] = {}

    async def start(self) -> None:
        """Open the door.

        Raises:
            ServeError: if an address cannot be bound.
            StoreError: if the store cannot be opened.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        options = self._options
        traces = None
        builder = self._builder
        if options.upstream is not None:
            upstream = Upstream(
                options.upstream, options.upstream_credentials, options.max_message_size
            )
            self._stack.push_async_callback(upstream.close)
            builder = upstream
        if options.traces is not None:
            self._stack.callback(options.traces.shutdown)
            tracer = tracer_of(options.traces)
            traces = Traces(tracer)
            builder = TracedBuilds(builder, tracer)
        builder = self._wrapped(builder)
        observers = [log_call]
        if options.metrics is not None:
            metrics = Metrics(self.numbers)
            observers.append(metrics.observe)
            self._serve_metrics(metrics)
        self._door = Door(builder, observers, traces.call if traces else None)
        await self._listen()

    def _wrapped(self, builder: Builder) -> Builder:
        """What is asked before the builder is."""
        options = self._options
        builds = BuildLimit(CheckedAnswers(builder), options.max_builds)
        self.numbers["builds"] = lambda: builds.builds
        self.numbers["waiting_calls"] = lambda: builds.waiting
        builder = builds
        if options.store is not None:
            store = RequestStore(options.store)
            self._stack.callback(store.close)
            builder = Recorded(builder, store)
        if options.deduplicate:
            builder = shared = Shared(builder)
            self.numbers["shared_calls_total"] = lambda: shared.joined
        calls = CallLimit(builder, options.max_builds + options.max_queue)
        self.numbers["open_calls"] = lambda: calls.calls
        return calls

    def _serve_metrics(self, metrics: Metrics) -> None:
        assert self._options.metrics
        host, port = self._options.metrics
        try:
            server, thread = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise ServeError(f"metrics at {host}:{port}: {error.strerror or error}") from None
        self._stack.callback(_stop, server, thread)
        self.metrics_port = server.server_port

    async def _listen(self) -> None:
        options = self._options
        self._server = server = grpc.aio.server(options=server_options(options.max_message_size))
        server.add_generic_rpc_handlers(self._door.handlers(options.services))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.name for service in options.services]
        shown = [*names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(shown, server, _descriptors(options.services))
        for address in options.listen:
            self.addresses.append(address.with_port(self._bind(address)))
        await server.start()
        for name in names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def _bind(self, address: Address) -> int:
        if address.port is None and _is_served(address.target.removeprefix("unix:")):
            raise ServeError(f"{address.text}: expected nobody there, found a server that listens")
        try:
            if address.tls:
                assert self._options.credentials
                return self._server.add_secure_port(address.target, self._options.credentials)
            return self._server.add_insecure_port(address.target)
        except RuntimeError as error:
            raise ServeError(f"{address.text}: expected to listen there, found {error}") from None

    async def close(self, grace: float | None) -> None:
        """Refuse new calls; end when those in flight have, or are cancelled after `grace` seconds.
        A later call of this with less of it cuts that short."""
        # Watchers that do not read must not keep it.
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._health.enter_graceful_shutdown(), 1)
        stopping = asyncio.create_task(self._server.stop(grace))
        idle = asyncio.create_task(self._door.wait_until_idle())
        await asyncio.wait([stopping, idle], return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        # Those who watch its health would stay.
        await self._server.stop(None)
        await stopping

    async def free(self) -> None:
        """Free what the open door had."""
        await self._stack.aclose()


def _is_served(path: str) -> bool:
    """Whether somebody listens at a unix socket; gRPC would take the place over."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _stop(server: WSGIServer, thread: threading.Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()


def _descriptors(services: Sequence[Service]) -> DescriptorPool:
    """What reflection shows; not the process's own pool, where names may mean another schema."""
    pool = DescriptorPool()
    added: set[str] = set()

    def add(file: Any) -> None:
        if file.name not in added:
            added.add(file.name)
            for dependency in file.dependencies:
                add(dependency)
            pool.AddSerializedFile(file.serialized_pb)

    for service in services:
        if service.module is not None:
            add(importlib.import_module(service.module).DESCRIPTOR)
    add(health_pb2.DESCRIPTOR)
    add(reflection_pb2.DESCRIPTOR)
    return pool


async def run(options: Options, grace: float) -> None:
    """Serve until SIGTERM or SIGINT, then let calls end, for `grace` seconds; a second signal ends
    them.

    Raises:
        ServeError, StoreError: as `Server.start`.
    """
    server = Server(options)
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    await server.start()
    try:
        LOG.info("listening", extra={"fields": {"addresses": server.addresses}})
        name = signal.Signals(await signals.get()).name
        fields = {"signal": name, "grace_seconds": grace}
        LOG.info("draining", extra={"fields": fields})
        closing = asyncio.create_task(server.close(grace))
        again = asyncio.create_task(signals.get())
        await asyncio.wait([closing, again], return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            await server.close(None)
        await closing
        again.cancel()
    finally:
        await server.free()
    LOG.info("stopped")
