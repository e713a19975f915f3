# SPDX-License-Identifier: MIT
"""Writes the report of a comparison: README.md with tables, and plots beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import plots
from bench.measure import Ratio, Sample, ratio
from bench.results import Results

TITLES = {
    "direct": "nixpkgs direct",
    "closure": "nixpkgs closure",
    "direct-shuffled": "direct, shuffled",
    "closure-shuffled": "closure, shuffled",
    "tiny": "tiny",
    "million": "1M unsorted inputs",
    "prefix": "4 of 100k, common prefix",
}
_OTHERS = ["Python", "Rust as upstream", "Rust light", "C++"]
_PEERS = [
    "tvix_build",
    "tvix_build, two threads",
    "tvix_build, list of bytes",
    "tvix_build, C core",
    *_OTHERS,
]

#: How many times faster than each of the others tvix_build must be at least.
_FLOORS: dict[str, dict[str, float]] = {
    "direct": {"Python": 22, "Rust as upstream": 8, "Rust light": 5.5},
    "closure": {"Python": 50, "Rust as upstream": 12, "Rust light": 6.5},
    "direct-shuffled": {"Python": 20, "Rust as upstream": 7, "Rust light": 5},
    "tiny": {"Python": 70, "Rust as upstream": 9, "Rust light": 7},
    "million": {"Python": 80, "Rust as upstream": 20, "Rust light": 9},
}
_HASH_FLOORS = {256: 4.0, 1024: 4.0, 4096: 2.0}
_HASH_FLOOR = 0.9
_MEMORY_FLOOR = 64 << 20
_AIM = 0.5

_HEAD = """<!-- SPDX-License-Identifier: MIT -->
<!-- Written by bench/run. Do not edit. -->
# Benchmarks

{when}

`bench/run` builds the peers, generates the corpora, measures everything and writes this page. It
takes less than ten minutes; `bench/run --quick` takes three. [Method](../README.md).
`bench/load` measures [the cost of the validating proxy](load.md).
"""


def write(results: Results, directory: Path) -> None:
    """Write the report into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    sections = [
        _HEAD.format(when=_when(results)),
        *_floors(results),
        *_throughput(results),
        *_hashing(results),
        *_growth(results),
        *_memory(results),
        *_machine(results),
    ]
    (directory / "README.md").write_text("\n".join(sections))
    plots.write(results, directory)


def _when(results: Results) -> str:
    machine, rules = results.machine, results.races["rules"]["tvix_build"]
    load = float(machine["Load before the run"])
    busy = " Other processes used the machine: the figures are rough." if load > 0.5 else ""
    return (
        f"{machine['CPU']}, {machine['CPUs']} CPUs; tvix_build {machine['tvix_build']}. All peers "
        f"gave the same verdicts and digests, also for {rules.requests} test vectors.{busy}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are text, the others numbers."""
    rule = ["---"] * left + ["--:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows]) + "\n"


# ---- floors


def _floors(results: Results) -> Iterator[str]:
    yield "## Speedup\n"
    yield (
        "The speed of tvix_build relative to each peer, with one thread: the median of the rounds "
        "(worst-best), and whether the required minimum is reached (✓) or missed (✗). The last "
        "column is the throughput relative to that of BLAKE3 alone in the L2 cache.\n"
    )
    peak = _peak(results)
    rows = []
    for corpus, title in TITLES.items():
        race = results.races.get(f"corpus/{corpus}")
        if race:
            floors = _FLOORS.get(corpus, {})
            cells = [_against(race, name, floors.get(name)) for name in _OTHERS]
            part = _rate(race["tvix_build"]) / peak
            rows.append([title, *cells, f"{part:.2f} {_mark(part >= _AIM)} {_AIM:g}"])
    head = ["corpus", *(f"vs {name}" for name in _OTHERS), "vs BLAKE3's peak"]
    yield _table(head, rows)
    head = ["ratio of speeds", "corpus", "measured", "minimum"]
    yield _table(head, list(_other_floors(results)), left=2)


def _against(race: dict[str, Sample], other: str, floor: float | None) -> str:
    times = ratio(race["tvix_build"], race[other])
    text = f"**{times.median:.1f}** ({times.least:.1f}-{times.greatest:.1f})"
    return text if floor is None else f"{text} {_mark(times.median >= floor)} {floor:g}"


def _mark(reached: bool) -> str:
    return "✓" if reached else "✗"


_SINGLE_CALLS = {
    "check": ("PyPI blake3 / `check(bytes)`, one message a call", 0.5),
    "digest": ("PyPI blake3 / `digest(bytes)`, one message a call", 0.5),
    "check-message": ("`SerializeToString` and PyPI blake3 / `check(message)`", 0.77),
    "build-request": ("protobuf's constructor and PyPI blake3 / `build_request`", 0.33),
}


def _other_floors(results: Results) -> Iterator[list[str]]:
    """Yield what is compared, the corpus, the ratio, and the required minimum."""
    for variant, what, floor in [
        ("tvix_build, two threads", "two threads / one thread", 1.8),
        ("tvix_build, list of bytes", "list of bytes / one buffer", 0.6),
    ]:
        for corpus, title in TITLES.items():
            race = results.races.get(f"corpus/{corpus}", {})
            if variant in race:
                yield _row(what, title, ratio(race[variant], race["tvix_build"]), floor)
    for name, what, floor in [
        ("level", "C core with AVX2 / with AVX-512", 0.6),
        ("violations", "C core, keeping 100 violations / keeping 1", 0.97),
        ("command line", "`tvix-build validate` / `check_batch`, all CPUs", 0.7),
        ("command line, one CPU", "`tvix-build validate` / `check_batch`, one CPU", 0.7),
    ]:
        if name in results.races:
            slow, fast = results.races[name].values()
            yield _row(what, TITLES["direct"], ratio(slow, fast), floor)
    for call, (what, floor) in _SINGLE_CALLS.items():
        if f"single/{call}" in results.races:
            of, to = results.races[f"single/{call}"].values()
            yield _row(what, TITLES["tiny"], ratio(of, to), floor)
    if "files" in results.races:
        of, to = results.races["files"].values()
        what = "`tvix-build ingest` / b3sum, all CPUs"
        yield _row(what, "100k small files", ratio(of, to), 0.67)
    if "derivations" in results.races:
        of, to = results.races["derivations"].values()
        what = "`tvix-build from-drv` / plain Python that does not check requests"
        yield _row(what, "20,800 derivations", ratio(of, to), 2.5)
    arrow = results.races.get("arrow", {})
    for name, sample in arrow.items():
        if name != "one buffer":
            what = f"Arrow {name} / one buffer"
            yield _row(what, TITLES["direct"], ratio(sample, arrow["one buffer"]), None)


def _row(what: str, where: str, times: Ratio, floor: float | None) -> list[str]:
    measured = f"**{times.median:.2f}** ({times.least:.2f}-{times.greatest:.2f})"
    mark = "" if floor is None else f"{_mark(times.median >= floor)} {floor:g}"
    return [what, where, measured, mark]


# ---- figures


def _rate(sample: Sample) -> float:
    """Bytes a second."""
    return sample.bytes / sample.seconds


def _peak(results: Results) -> float:
    """The most bytes a second that BLAKE3 reached in the cache, whichever code did."""
    if "peak" not in results.races:
        return 0.0
    hashed = [results.races["peak"]["official C"]]
    hashed += [
        race["blake3_many"] for name, race in results.races.items() if name.startswith("hash/")
    ]
    return max(map(_rate, hashed))


def _throughput(results: Results) -> Iterator[str]:
    yield "## Throughput\n"
    yield "MB/s of input (slowest-fastest round), and thousands of requests per second.\n"
    present = [corpus for corpus in TITLES if f"corpus/{corpus}" in results.races]
    head = [""]
    for corpus in present:
        sample = next(iter(results.races[f"corpus/{corpus}"].values()))
        head.append(f"{TITLES[corpus]}<br>{sample.requests:,} of {_bytes(_mean(sample))}")
    rows = []
    for peer in _PEERS:
        cells = [_throughput_of(results.races[f"corpus/{c}"].get(peer)) for c in present]
        if any(cells):
            rows.append([peer, *cells])
    yield _table(head, rows)
    yield "![Throughput by corpus](throughput.svg)\n"


def _throughput_of(sample: Sample | None) -> str:
    if sample is None:
        return ""
    fast, slow = sample.spread()
    rate = f"**{_rate(sample) / 1e6:,.0f}** ({sample.bytes / slow / 1e6:,.0f}-"
    rate += f"{sample.bytes / fast / 1e6:,.0f})"
    requests = sample.requests / sample.seconds / 1000
    return rate + (
        f"<br>{requests:,.{1 if requests < 100 else 0}f}k" if sample.requests > 10 else ""
    )


def _mean(sample: Sample) -> int:
    return sample.bytes // sample.requests


def _bytes(size: int) -> str:
    if size < 1024:
        return f"{size} B"
    return f"{size / 1024:.3g} KiB" if size < 1 << 20 else f"{size / 2**20:.3g} MiB"


def _hash_sizes(results: Results) -> list[int]:
    names = [name.partition("/") for name in results.races]
    return [int(size) for kind, _, size in names if kind == "hash"]


def _hashing(results: Results) -> Iterator[str]:
    sizes = _hash_sizes(results)
    if not sizes:
        return
    yield "## BLAKE3 of many messages\n"
    yield "GB/s, by the size of the messages; 4 MiB of messages in each call.\n"
    peers = list(results.races[f"hash/{sizes[0]}"])
    rows = [
        [peer, *(f"{_rate(results.races[f'hash/{size}'][peer]) / 1e9:.2f}" for size in sizes)]
        for peer in peers
    ]
    for variant in ("blake3_many", "blake3_many, list of bytes"):
        rows.append([f"{variant} / official C", *(_hash_floor(results, variant, s) for s in sizes)])
    yield _table(["", *map(_bytes, sizes)], rows)
    if "peak" in results.races:
        one = _rate(results.races["peak"]["official C"]) / 1e9
        yield f"Official C on one buffer of 256 KiB in the L2 cache: {one:.2f} GB/s.\n"
    yield "![BLAKE3 by message size](hashing.svg)\n"


def _hash_floor(results: Results, variant: str, size: int) -> str:
    race = results.races[f"hash/{size}"]
    times = ratio(race[variant], race["official C"]).median
    floor = _HASH_FLOORS.get(size, _HASH_FLOOR)
    return f"**{times:.2f}** {_mark(times >= floor)} {floor:g}"


def _growth(results: Results) -> Iterator[str]:
    lengths = plots.list_lengths(results)
    if lengths:
        yield "## Growth\n"
        yield "Nanoseconds per input, by the number of unsorted inputs in a request:\n"
        peers = [name for name in _PEERS if name in results.races[f"length/{lengths[0]}"]]
        rows = [
            [peer, *(f"{plots.per_input(results, length, peer):,.0f}" for length in lengths)]
            for peer in peers
        ]
        yield _table(["", *(f"{length:,}" for length in lengths)], rows)
        yield "![Time per input by the length of the list](lengths.svg)\n"
    batch = results.races.get("batch")
    if batch:
        yield "Nanoseconds per tiny request, by the number of requests in a call:\n"
        costs = [f"{s.seconds / s.requests * 1e9:,.0f}" for s in batch.values()]
        yield _table(["", *(f"{int(size):,}" for size in batch)], [["tvix_build", *costs]])
        yield "![Time per request by the size of the batch](batches.svg)\n"


def _memory(results: Results) -> Iterator[str]:
    yield "## Memory\n"
    yield "MiB of the input, of the results, and of the peak additional memory of the process.\n"
    rows = []
    for name, memory in results.memory.items():
        beyond = max(memory.growth - memory.results, 0)
        sizes = [f"{size / 2**20:.1f}" for size in (memory.input, memory.results, beyond)]
        limit = f"{_mark(beyond <= _MEMORY_FLOOR)} at most {_MEMORY_FLOOR >> 20}"
        rows.append([name, *sizes, limit])
    yield _table(["batch", "input", "results", "additional", ""], rows)
    if results.resident:
        most = (f"{size / 2**20:.0f} MiB for {file}" for file, size in results.resident.items())
        yield f"Peak memory of `tvix-build validate`: {', '.join(most)}.\n"


def _machine(results: Results) -> Iterator[str]:
    yield "## Machine and versions\n"
    yield _table(["", ""], [[name, value] for name, value in results.machine.items()], left=2)
    if results.notes:
        yield "Not measured:\n"
        yield "\n".join(f"- {note}" for note in results.notes) + "\n"
