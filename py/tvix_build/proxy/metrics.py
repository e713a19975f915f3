# SPDX-License-Identifier: MIT
"""Metrics for Prometheus. docs/serve.md lists the names.

Only the event loop counts calls, so plain integers are enough. The counters of prometheus_client
take a lock and look up labels, which would be a good part of the cost of a call. A scrape converts
the integers to metrics.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate

import grpc
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tvix_build.proxy.outcomes import Outcome
from tvix_build.proxy.shared.services import Service

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


_CALLERS = 1000
"""The limit of names of callers, which label a metric."""


class _OfService:
    """The counts of one service."""

    def __init__(self) -> None:
        self.ends: Counter[tuple[grpc.StatusCode, str]] = Counter()
        self.violations: Counter[str] = Counter()
        self.buckets = [0] * (len(SECONDS) + 1)
        self.seconds = 0.0
        self.request_bytes = 0
        self.response_bytes = 0


class Metrics(Collector):
    """The metrics of one proxy.

    Args:
        numbers: functions that return the current values, by name without prefix. Those named
            `*_total` are counters, the others gauges.

    Attributes:
        registry: a registry of these metrics only.
    """

    def __init__(self, numbers: Mapping[str, Callable[[], float]]) -> None:
        self._numbers = numbers
        self._services: dict[Service, _OfService] = {}
        self._callers: Counter[tuple[str, grpc.StatusCode]] = Counter()
        self.registry: CollectorRegistry = CollectorRegistry()
        self.registry.register(self)

    def observe(self, outcome: Outcome) -> None:
        """Count a call that ended."""
        found = self._services.get(outcome.service)
        if found is None:
            found = self._services[outcome.service] = _OfService()
        found.ends[outcome.code, outcome.by] += 1
        found.buckets[bisect_left(SECONDS, outcome.seconds)] += 1
        found.seconds += outcome.seconds
        found.request_bytes += outcome.request_size
        found.response_bytes += outcome.response_size
        if outcome.caller and (
            (outcome.caller, outcome.code) in self._callers or len(self._callers) < _CALLERS
        ):
            self._callers[outcome.caller, outcome.code] += 1
        if outcome.violations:
            found.violations.update(outcome.violations)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; Prometheus calls this for each scrape."""
        calls = CounterMetricFamily(
            "tvix_build_calls",
            "Completed calls, by status and origin of the status.",
            labels=["schema", "code", "by"],
        )
        seconds = HistogramMetricFamily(
            "tvix_build_call_seconds",
            "Seconds from the receipt of the request to the end of the call.",
            labels=["schema"],
        )
        violations = CounterMetricFamily(
            "tvix_build_violations",
            "Violations in requests and responses.",
            labels=["schema", "violation"],
        )
        sizes = CounterMetricFamily(
            "tvix_build_message_bytes",
            "Bytes of requests and responses.",
            labels=["schema", "message"],
        )
        callers = CounterMetricFamily(
            "tvix_build_caller_calls",
            "Completed calls of callers with names, by status.",
            labels=["caller", "code"],
        )
        for (caller, code), number in list(self._callers.items()):
            callers.add_metric([caller, code.name], number)
        for service, found in list(self._services.items()):
            schema = service.schema.value
            for (code, by), number in list(found.ends.items()):
                calls.add_metric([schema, code.name, by], number)
            for violation, number in list(found.violations.items()):
                violations.add_metric([schema, violation], number)
            limits = [*map(str, SECONDS), "+Inf"]
            buckets = list(zip(limits, accumulate(found.buckets), strict=True))
            seconds.add_metric([schema], buckets, found.seconds)
            sizes.add_metric([schema, "request"], found.request_bytes)
            sizes.add_metric([schema, "response"], found.response_bytes)
        return [calls, callers, seconds, violations, sizes, *self._now()]

    def _now(self) -> Iterable[Metric]:
        for name, number in self._numbers.items():
            full = f"tvix_build_{name}"
            what = name.removesuffix("_total").replace("_", " ")
            if name.endswith("_total"):
                yield CounterMetricFamily(full, f"{what.capitalize()}.", number())
            else:
                yield GaugeMetricFamily(full, f"Current {what}.", number())
