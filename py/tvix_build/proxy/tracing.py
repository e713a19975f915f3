# SPDX-License-Identifier: MIT
"""OpenTelemetry traces: a span for each call, with a child span for the call to the builder. The
trace context is W3C's `traceparent` in the metadata, from the caller and to the builder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tvix_build._version import __version__
from tvix_build.proxy.builder_protocol import Builder, Call, Metadata, Response
from tvix_build.proxy.outcomes import Outcome, ServiceOutcome
from tvix_build.proxy.status import StatusError

_CONTEXT = TraceContextTextMapPropagator()
# The server errors of OpenTelemetry's conventions for gRPC.
_ERRORS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


def exporting_provider(endpoint: str) -> TracerProvider:
    """Return a provider that exports spans to an OTLP collector at `http://HOST:PORT`.

    Raises:
        ModuleNotFoundError: if opentelemetry-exporter-otlp-proto-grpc is not installed.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(
        resource=Resource.create({"service.name": "tvix-build", "service.version": __version__})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider


def tracer_of(provider: TracerProvider) -> Tracer:
    """Return the tracer of this package."""
    return provider.get_tracer("tvix_build", __version__)


class CallTracer:
    """Traces calls."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def call(self, outcome: Outcome, metadata: Metadata) -> Iterator[None]:
        """Run a call in a span, a child of the caller's span. The span ends with the outcome."""
        span = self._start(f"{outcome.service.name}/DoBuild", metadata, outcome)
        span.set_attribute("tvix_build.schema", outcome.service.label)
        with use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                yield
            finally:
                if outcome.digest is not None:
                    span.set_attribute("tvix_build.digest", outcome.digest.hex())
                if outcome.violations:
                    span.set_attribute("tvix_build.violations", outcome.violations)
                _end(span, outcome)

    @contextmanager
    def service_call(self, outcome: ServiceOutcome, metadata: Metadata) -> Iterator[None]:
        """As `call`, for a call of the castore services or of PlanService."""
        # The span is not the current one: a generator that sends a response may be closed in
        # another context than that of its start.
        span = self._start(outcome.method, metadata, outcome)
        try:
            yield
        finally:
            _end(span, outcome)

    def _start(self, method: str, metadata: Metadata, outcome: Outcome | ServiceOutcome) -> Span:
        carrier = {name: value for name, value in metadata if isinstance(value, str)}
        span = self._tracer.start_span(
            method,
            context=_CONTEXT.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=_attributes(method),
        )
        outcome.trace = f"{span.get_span_context().trace_id:032x}"
        return span


class BuildTracer:
    """Traces calls to the builder, and sends the trace context to the builder."""

    def __init__(self, builder: Builder, tracer: Tracer) -> None:
        self._builder = builder
        self._tracer = tracer

    async def build(self, call: Call) -> Response:
        """Forward a call in a span."""
        method = f"{call.service.name}/DoBuild"
        with self._tracer.start_as_current_span(
            method,
            kind=SpanKind.CLIENT,
            attributes=_attributes(method),
            record_exception=False,
        ) as span:
            carrier: dict[str, str] = {}
            _CONTEXT.inject(carrier)
            metadata = tuple(one for one in call.metadata if one[0] not in _CONTEXT.fields)
            traced = call._replace(metadata=(*metadata, *carrier.items()))
            try:
                response = await self._builder.build(traced)
            except StatusError as error:
                span.set_attribute("rpc.grpc.status_code", error.code.value[0])
                raise
            span.set_attribute("rpc.grpc.status_code", 0)
            return response


def _attributes(method: str) -> dict[str, str]:
    service, _, name = method.partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


def _end(span: Span, outcome: Outcome | ServiceOutcome) -> None:
    span.set_attribute("rpc.grpc.status_code", outcome.code.value[0])
    span.set_attribute("tvix_build.request_bytes", outcome.request_size)
    span.set_attribute("tvix_build.response_bytes", outcome.response_size)
    if outcome.code in _ERRORS:
        span.set_status(Status(StatusCode.ERROR, outcome.message))
    span.end()
