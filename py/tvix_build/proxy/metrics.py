# SPDX-License-Identifier: MIT
"""Counts for Prometheus. docs/serve.md lists the names.

Calls are counted by the event loop alone, in plain numbers: Prometheus' own counters lock and look
labels up, which is a good part of what a call costs. They are made into metrics when asked for.
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


class _OfService:
    """What is counted of the calls of one service."""

    def __init__(self) -> None:
        self.ends: Counter[tuple[grpc.StatusCode, str]] = Counter()
        self.violations: Counter[str] = Counter()
        self.buckets = [0] * (len(SECONDS) + 1)
        self.seconds = 0.0
        self.request_bytes = 0
        self.answer_bytes = 0


class Metrics(Collector):
    """The metrics of one door.

    Args:
        numbers: name, without prefix, to what it is at the moment: `*_total` are counters.

    Attributes:
        registry: has these metrics and no others.
    """

    def __init__(self, numbers: Mapping[str, Callable[[], float]]) -> None:
        self._numbers = numbers
        self._services: dict[Service, _OfService] = {}
        self.registry = CollectorRegistry()
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
        found.answer_bytes += outcome.answer_size
        if outcome.violations:
            found.violations.update(outcome.violations)

    def collect(self) -> Iterable[Metric]:
        """What Prometheus gets."""
        calls = CounterMetricFamily(
            "tvix_build_calls",
            "Calls that ended, by status and who gave it.",
            labels=["schema", "code", "by"],
        )
        seconds = HistogramMetricFamily(
            "tvix_build_call_seconds",
            "Seconds from a call's message to its end.",
            labels=["schema"],
        )
        violations = CounterMetricFamily(
            "tvix_build_violations",
            "Violations of requests and answers.",
            labels=["schema", "violation"],
        )
        sizes = CounterMetricFamily(
            "tvix_build_message_bytes", "Bytes of messages.", labels=["schema", "message"]
        )
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
            sizes.add_metric([schema, "answer"], found.answer_bytes)
        return [calls, seconds, violations, sizes, *self._now()]

    def _now(self) -> Iterable[Metric]:
        for name, number in self._numbers.items():
            full = f"tvix_build_{name}"
            what = name.removesuffix("_total").replace("_", " ").capitalize()
            if name.endswith("_total"):
                yield CounterMetricFamily(full, f"{what}.", number())
            else:
                yield GaugeMetricFamily(full, f"{what} at the moment.", number())
