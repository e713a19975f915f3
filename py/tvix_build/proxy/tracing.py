# SPDX-License-Identifier: MIT
"""Traces by OpenTelemetry: a span for each call, one within it for each build upstream. The trace's
context comes and goes as W3C's `traceparent` in the metadata."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tvix_build._version import __version__
from tvix_build.proxy.builder_protocol import Answer, Builder, Call, Metadata
from tvix_build.proxy.outcomes import Outcome
from tvix_build.proxy.status import Refusal

_CONTEXT = TraceContextTextMapPropagator()
# For which the server is to blame, by OpenTelemetry's conventions for gRPC.
_ERRORS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


def exporting_provider(endpoint: str) -> TracerProvider:
    """Sends spans to an OTLP collector, `http://HOST:PORT`, in the background.

    Raises:
        ModuleNotFoundError: without opentelemetry-exporter-otlp-proto-grpc.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(
        resource=Resource.create({"service.name": "tvix-build", "service.version": __version__})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider


def tracer_of(provider: TracerProvider) -> Tracer:
    """What makes the spans."""
    return provider.get_tracer("tvix_build", __version__)


class Traces:
    """Makes the span of a call."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def call(self, outcome: Outcome, metadata: Metadata) -> Iterator[None]:
        """The span, below the caller's own; it takes over the outcome when the call ended."""
        carrier = {name: value for name, value in metadata if isinstance(value, str)}
        service = outcome.service
        with self._tracer.start_as_current_span(
            f"{service.name}/DoBuild",
            context=_CONTEXT.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={**_attributes(service.name), "tvix_build.schema": service.schema.value},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            outcome.trace = f"{span.get_span_context().trace_id:032x}"
            try:
                yield
            finally:
                _end(span, outcome)


class TracedBuilds:
    """Makes the span of a build, and tells the builder of it."""

    def __init__(self, builder: Builder, tracer: Tracer) -> None:
        self._builder = builder
        self._tracer = tracer

    async def build(self, call: Call) -> Answer:
        """Pass a call on, with its trace."""
        with self._tracer.start_as_current_span(
            f"{call.service.name}/DoBuild",
            kind=SpanKind.CLIENT,
            attributes=_attributes(call.service.name),
            record_exception=False,
        ) as span:
            carrier: dict[str, str] = {}
            _CONTEXT.inject(carrier)
            metadata = tuple(one for one in call.metadata if one[0] not in _CONTEXT.fields)
            told = call._replace(metadata=(*metadata, *carrier.items()))
            try:
                answer = await self._builder.build(told)
            except Refusal as refusal:
                span.set_attribute("rpc.grpc.status_code", refusal.code.value[0])
                raise
            span.set_attribute("rpc.grpc.status_code", 0)
            return answer


def _attributes(service: str) -> dict[str, str]:
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": "DoBuild"}


def _end(span: Span, outcome: Outcome) -> None:
    span.set_attribute("rpc.grpc.status_code", outcome.code.value[0])
    span.set_attribute("tvix_build.request_bytes", outcome.request_size)
    span.set_attribute("tvix_build.answer_bytes", outcome.answer_size)
    if outcome.digest is not None:
        span.set_attribute("tvix_build.digest", outcome.digest.hex())
    if outcome.violations:
        span.set_attribute("tvix_build.violations", outcome.violations)
    if outcome.code in _ERRORS:
        span.set_status(Status(StatusCode.ERROR, outcome.message))
