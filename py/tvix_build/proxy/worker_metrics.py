# SPDX-License-Identifier: MIT
"""Adds up the metrics of several processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

Described: TypeAlias = "list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]"
"""The name, the documentation and the type of each metric, and the name, the labels and the value
of each sample; serializable as JSON."""
_LEAST = ("tvix_build_healthy_builders",)
"""The gauges of what all processes use, of which the least value counts."""


def describe(metrics: Iterable[Metric]) -> Described:
    """Return metrics as lists."""
    return [
        (
            one.name,
            one.documentation,
            one.type,
            [(sample.name, sample.labels, sample.value) for sample in one.samples],
        )
        for one in metrics
    ]


class WorkerMetrics(Collector):
    """The metrics of all workers.

    Attributes:
        registry: a registry of these metrics only.
    """

    def __init__(self) -> None:
        self._current: dict[int, Described] = {}
        self._ended: list[Described] = []
        self.registry: CollectorRegistry = CollectorRegistry()
        self.registry.register(self)

    def set(self, worker: int, metrics: Described) -> None:
        """Replace the metrics of a worker."""
        self._current[worker] = metrics

    def end(self, worker: int) -> None:
        """Keep what a worker counted, as counters must not decrease, and forget its gauges."""
        counted = [one for one in self._current.pop(worker, []) if one[2] != "gauge"]
        self._ended = [describe(_add([*self._ended, counted]))]

    def collect(self) -> Iterable[Metric]:
        """Return the sums; Prometheus calls this for each scrape."""
        yield from _add([*self._current.values(), *self._ended])
        yield GaugeMetricFamily(
            "tvix_build_workers", "Processes that accept calls.", len(self._current)
        )


def _add(processes: Iterable[Described]) -> list[Metric]:
    found: dict[str, Metric] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for metrics in processes:
        for name, documentation, kind, samples in metrics:
            found.setdefault(name, Metric(name, documentation, kind))
            values = sums.setdefault(name, {})
            for sample, labels, value in samples:
                key = sample, tuple(labels.items())
                if name in _LEAST:
                    values[key] = min(value, values.get(key, value))
                else:
                    values[key] = values.get(key, 0) + value
    for name, metric in found.items():
        metric.samples = [
            Sample(sample, dict(labels), value) for (sample, labels), value in sums[name].items()
        ]
    return [*found.values()]
