# SPDX-License-Identifier: MIT
"""Counts for Prometheus. docs/serve.md lists the names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tvix_build._serve.outcomes import Outcome

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


class Metrics:
    """The metrics of one door, in a registry of their own.

    Args:
        gauges: name, without prefix, to what it is at the moment: `*_total` are counters.
    """

    def __init__(self, gauges: Mapping[str, Callable[[], float]]) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "tvix_build_calls",
            "Calls that ended, by schema, status and who gave it.",
            ["schema", "code", "by"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "tvix_build_call_seconds",
            "Seconds from a call's message to its end.",
            ["schema"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._violations = Counter(
            "tvix_build_violations",
            "Violations of requests and answers.",
            ["schema", "violation"],
            registry=self.registry,
        )
        self._bytes = Counter(
            "tvix_build_message_bytes",
            "Bytes of messages.",
            ["schema", "message"],
            registry=self.registry,
        )
        self.registry.register(_Now(gauges))
        # labels() is slow.
        self._of_calls: dict[tuple[str, str, str], _OfCalls] = {}

    def observe(self, outcome: Outcome) -> None:
        """Count a call that ended."""
        schema = outcome.service.schema
        key = (schema, outcome.code.name, outcome.by)
        found = self._of_calls.get(key)
        if found is None:
            found = self._of_calls[key] = _OfCalls(
                self._calls.labels(*key),
                self._seconds.labels(schema),
                self._bytes.labels(schema, "request"),
                self._bytes.labels(schema, "answer"),
            )
        found.observe(outcome)
        for violation in outcome.violations:
            self._violations.labels(schema, violation).inc()


class _OfCalls:
    """What counts calls of one schema that ended alike."""

    def __init__(
        self, calls: Counter, seconds: Histogram, requests: Counter, answers: Counter
    ) -> None:
        self._calls = calls
        self._seconds = seconds
        self._requests = requests
        self._answers = answers

    def observe(self, outcome: Outcome) -> None:
        self._calls.inc()
        self._seconds.observe(outcome.seconds)
        self._requests.inc(outcome.request_size)
        self._answers.inc(outcome.answer_size)


class _Now(Collector):
    """Reads numbers that others keep, when asked."""

    def __init__(self, numbers: Mapping[str, Callable[[], float]]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        for name, number in self._numbers.items():
            full = f"tvix_build_{name}"
            what = name.replace("_", " ").removesuffix(" total").capitalize()
            if name.endswith("_total"):
                yield CounterMetricFamily(full, f"{what}.", number())
            else:
                yield GaugeMetricFamily(full, f"{what} at the moment.", number())
