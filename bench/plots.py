# SPDX-License-Identifier: MIT
"""The plots of a report, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.results import Results

_COLOURS = {
    "tvix_build": "#0b6e4f",
    "tvix_build, two threads": "#5fb49c",
    "blake3_many": "#0b6e4f",
    "blake3_many, list of bytes": "#5fb49c",
    "Rust light": "#c8553d",
    "Rust as upstream": "#e9a178",
    "C++": "#4d6cb3",
    "official C": "#4d6cb3",
    "Python": "#d9a404",
    "PyPI blake3": "#d9a404",
}
_CORPORA = {
    "direct": "nixpkgs\ndirect",
    "closure": "nixpkgs\nclosure",
    "direct-shuffled": "direct,\nshuffled",
    "tiny": "tiny",
    "million": "1M unsorted\ninputs",
    "prefix": "4 of 100k,\ncommon prefix",
}


def write(results: Results, directory: Path) -> None:
    """Write those plots that there are figures for."""
    matplotlib.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "tvix_build",
            "font.family": "sans-serif",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    _throughput(results, directory / "throughput.svg")
    _hashing(results, directory / "hashing.svg")
    _lengths(results, directory / "lengths.svg")
    _batches(results, directory / "batches.svg")


def list_lengths(results: Results) -> list[int]:
    """The lengths of lists that were measured."""
    names = [name.partition("/") for name in results.races]
    lengths = [int(length) for kind, _, length in names if kind == "length"]
    if "corpus/million" in results.races and lengths:
        lengths.append(1_000_000)
    return lengths


def per_input(results: Results, length: int, peer: str) -> float:
    """Nanoseconds for one input of a request with the given number of inputs."""
    race = results.races["corpus/million" if length == 1_000_000 else f"length/{length}"]
    sample = race[peer]
    return 1e9 * sample.seconds / (sample.requests * length)


def _draw(path: Path, draw: Callable[[Axes], None], width: float = 7.5) -> None:
    figure = Figure(figsize=(width, 3.6), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(axis="y", which="major", alpha=0.3)
    axes.set_axisbelow(True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def _throughput(results: Results, path: Path) -> None:
    present = [corpus for corpus in _CORPORA if f"corpus/{corpus}" in results.races]
    peers = ["tvix_build", "Rust light", "Rust as upstream", "C++", "Python"]

    def draw(axes: Axes) -> None:
        width = 0.8 / len(peers)
        for i, peer in enumerate(peers):
            samples = [results.races[f"corpus/{corpus}"][peer] for corpus in present]
            rates = [sample.bytes / sample.seconds / 1e6 for sample in samples]
            places = [x + (i - (len(peers) - 1) / 2) * width for x in range(len(present))]
            bars = axes.bar(places, rates, width, label=peer, color=_COLOURS[peer])
            axes.bar_label(bars, fmt="%.0f", fontsize=6, padding=1)
        axes.set_xticks(range(len(present)), [_CORPORA[corpus] for corpus in present])
        axes.set_yscale("log")
        _plain(axes.yaxis)
        axes.set_ylabel("MB/s of requests, one thread")
        axes.legend(ncols=len(peers), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)

    _draw(path, draw, width=9)


def _short(number: int) -> str:
    """A number in a few letters: 100k, 64Ki."""
    for unit, factor in (("Mi", 1 << 20), ("M", 10**6), ("Ki", 1 << 10), ("k", 1000)):
        if number >= factor and number % factor == 0:
            return f"{number // factor}{unit}"
    return str(number)


def _plain(axis: Axis) -> None:
    """Labels 1, 2, 5, 10, 20 … on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _lines(
    axes: Axes, xs: Sequence[int], series: dict[str, list[float]], x_label: str, y_label: str
) -> None:
    for peer, ys in series.items():
        axes.plot(xs, ys, marker="o", markersize=3.5, label=peer, color=_COLOURS[peer])
    axes.set_xscale("log")
    axes.set_xticks(xs, [_short(x) for x in xs])
    axes.minorticks_off()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(series) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _hashing(results: Results, path: Path) -> None:
    sizes = [int(name.partition("/")[2]) for name in results.races if name.startswith("hash/")]
    if not sizes:
        return
    races = [results.races[f"hash/{size}"] for size in sizes]
    series = {
        peer: [race[peer].bytes / race[peer].seconds / 1e9 for race in races] for peer in races[0]
    }

    def draw(axes: Axes) -> None:
        _lines(axes, sizes, series, "bytes in a message", "GB/s, one thread")
        if "peak" in results.races:
            peak = results.races["peak"]["official C"]
            axes.axhline(peak.bytes / peak.seconds / 1e9, color="#888888", linestyle=":")
            axes.annotate(
                "official C, one buffer of 256 KiB",
                (sizes[0], peak.bytes / peak.seconds / 1e9),
                xytext=(0, 2),
                textcoords="offset points",
                fontsize=8,
                color="#666666",
            )
        axes.set_ylim(bottom=0)

    _draw(path, draw)


def _lengths(results: Results, path: Path) -> None:
    lengths = list_lengths(results)
    if not lengths:
        return
    peers = results.races[f"length/{lengths[0]}"]
    series = {peer: [per_input(results, length, peer) for length in lengths] for peer in peers}

    def draw(axes: Axes) -> None:
        _lines(axes, lengths, series, "inputs in a request, unsorted", "ns for an input")
        axes.set_yscale("log")
        _plain(axes.yaxis)

    _draw(path, draw)


def _batches(results: Results, path: Path) -> None:
    batch = results.races.get("batch")
    if not batch:
        return
    costs = [1e9 * sample.seconds / sample.requests for sample in batch.values()]

    def draw(axes: Axes) -> None:
        sizes = [int(size) for size in batch]
        _lines(axes, sizes, {"tvix_build": costs}, "requests in a call", "ns for a request")
        axes.set_yscale("log")
        _plain(axes.yaxis)

    _draw(path, draw)
