# SPDX-License-Identifier: MIT
"""Metrics for Prometheus. docs/serve.md lists the names.

Only the event loop counts calls, so plain integers are enough. The counters of prometheus_client
take a lock and look up labels, which would be a good part of the cost of a call. A scrape converts
the integers to metrics.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
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

from tvix_build.proxy.outcomes import Outcome, ServiceOutcome
from tvix_build.proxy.shared.services import Service

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


_CALLERS = 1000
"""The limit of names of callers, which label a metric."""


class _Counts:
    """The counts of one service or method."""

    def __init__(self) -> None:
        self.successes = 0
        self.failures: Counter[tuple[grpc.StatusCode, str]] = Counter()
        self.violations: Counter[str] = Counter()
        self.buckets = [0] * (len(SECONDS) + 1)
        self.seconds = 0.0
        self.request_bytes = 0
        self.response_bytes = 0

    def add(self, outcome: Outcome | ServiceOutcome) -> None:
        """Count a call."""
        if outcome.by:
            self.failures[outcome.code, outcome.by] += 1
        else:
            self.successes += 1
        self.buckets[bisect_left(SECONDS, outcome.seconds)] += 1
        self.seconds += outcome.seconds
        self.request_bytes += outcome.request_size
        self.response_bytes += outcome.response_size


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
        self._services: defaultdict[Service, _Counts] = defaultdict(_Counts)
        self._castore_methods: defaultdict[str, _Counts] = defaultdict(_Counts)
        self._plan_methods: defaultdict[str, _Counts] = defaultdict(_Counts)
        self._callers: Counter[tuple[str, grpc.StatusCode]] = Counter()
        self.registry: CollectorRegistry = CollectorRegistry()
        self.registry.register(self)

    def observe(self, outcome: Outcome) -> None:
        """Count a call that ended."""
        found = self._services[outcome.service]
        found.add(outcome)
        if outcome.caller and (
            (outcome.caller, outcome.code) in self._callers or len(self._callers) < _CALLERS
        ):
            self._callers[outcome.caller, outcome.code] += 1
        if outcome.violations:
            found.violations.update(outcome.violations)

    def observe_castore(self, outcome: ServiceOutcome) -> None:
        """Count a call of the castore services that ended."""
        self._castore_methods[outcome.method].add(outcome)

    def observe_plans(self, outcome: ServiceOutcome) -> None:
        """Count a call of PlanService that ended."""
        self._plan_methods[outcome.method].add(outcome)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; Prometheus calls this for each scrape."""
        violations = CounterMetricFamily(
            "tvix_build_violations",
            "Violations in requests and responses.",
            labels=["schema", "violation"],
        )
        callers = CounterMetricFamily(
            "tvix_build_caller_calls",
            "Completed calls of callers with names, by status.",
            labels=["caller", "code"],
        )
        for (caller, code), number in list(self._callers.items()):
            callers.add_metric([caller, code.name], number)
        services = {one.label: found for one, found in list(self._services.items())}
        for schema, found in services.items():
            for violation, number in list(found.violations.items()):
                violations.add_metric([schema, violation], number)
        yield from _families("tvix_build", "schema", services)
        yield violations
        yield callers
        if self._castore_methods:
            yield from _families("tvix_build_castore", "method", self._castore_methods)
        if self._plan_methods:
            yield from _families("tvix_build_plan", "method", self._plan_methods)
        yield from self._now()

    def _now(self) -> Iterable[Metric]:
        for name, number in self._numbers.items():
            full = f"tvix_build_{name}"
            what = name.removesuffix("_total").replace("_", " ")
            if name.endswith("_total"):
                yield CounterMetricFamily(full, f"{what.capitalize()}.", number())
            else:
                yield GaugeMetricFamily(full, f"Current {what}.", number())


def _families(prefix: str, label: str, counts: Mapping[str, _Counts]) -> Iterable[Metric]:
    """Return the metrics of calls, by service or method."""
    calls = CounterMetricFamily(
        f"{prefix}_calls",
        "Completed calls, by status and origin of the status.",
        labels=[label, "code", "by"],
    )
    seconds = HistogramMetricFamily(
        f"{prefix}_call_seconds",
        "Seconds from the receipt of the request to the end of the call.",
        labels=[label],
    )
    sizes = CounterMetricFamily(
        f"{prefix}_message_bytes",
        "Bytes of requests and responses.",
        labels=[label, "message"],
    )
    for name, found in list(counts.items()):
        if found.successes:
            calls.add_metric([name, grpc.StatusCode.OK.name, ""], found.successes)
        for (code, by), number in list(found.failures.items()):
            calls.add_metric([name, code.name, by], number)
        limits = [*map(str, SECONDS), "+Inf"]
        buckets = list(zip(limits, accumulate(found.buckets), strict=True))
        seconds.add_metric([name], buckets, found.seconds)
        sizes.add_metric([name, "request"], found.request_bytes)
        sizes.add_metric([name, "response"], found.response_bytes)
    return calls, seconds, sizes
