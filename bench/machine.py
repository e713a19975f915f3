# SPDX-License-Identifier: MIT
"""What a report says of the machine and of versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from bench.building import RUSTC, blake3_directory
from bench.corpora import ROOT

_FLAGS = ("avx2", "avx512f", "avx512bw", "avx512vl", "avx512vbmi")
_CRATES = ("prost", "bytes", "blake3")


def describe() -> dict[str, str]:
    """Names and values, in the order of the report."""
    flags = _cpu("flags").split()
    return {
        "CPU": cpu(),
        "Instruction sets": ", ".join(flag for flag in _FLAGS if flag in flags),
        "CPUs": str(len(os.sched_getaffinity(0))),
        "L2 cache": _file("/sys/devices/system/cpu/cpu0/cache/index2/size"),
        "L3 cache": _file("/sys/devices/system/cpu/cpu0/cache/index3/size"),
        "System": f"{_release()}, Linux {platform.release()}",
        "tvix_build": f"{metadata.version('tvix-build')}, {_commit()}",
        "Python": f"{platform.python_version()}, protobuf {metadata.version('protobuf')}, "
        f"blake3 {metadata.version('blake3')}",
        "Rust": f"{_first(RUSTC, '--version')}, {_crates()}",
        "C++": f"g++ {_first('g++', '-dumpfullversion')}, {_first('protoc', '--version')}",
        "Official BLAKE3": f"{blake3_directory().parent.name}, C and assembly",
    }


def cpu() -> str:
    """Its name."""
    return _cpu("model name") + _model()


def busy() -> float:
    """How many processes wanted to run in the last minute."""
    return os.getloadavg()[0]


def has(flag: str) -> bool:
    """Whether the CPU has a feature, by its name in /proc/cpuinfo."""
    return flag in _cpu("flags").split()


def _cpu(key: str) -> str:
    found = re.search(rf"^{key}\s*: (.*)$", _file("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else "unknown"


def _model() -> str:
    return f" (family {_cpu('cpu family')}, model {_cpu('model')})"


def _file(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "unknown"


def _release() -> str:
    found = re.search(r'^PRETTY_NAME="(.*)"$', _file("/etc/os-release"), re.MULTILINE)
    return found[1] if found else platform.system()


def _first(*command: str) -> str:
    """The first line that a program prints."""
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.partition("\n")[0].strip() or "unknown"


def _commit() -> str:
    changed = _first("git", "status", "--porcelain", "--", "native", "py/tvix_build", "setup.py")
    commit = _first("git", "rev-parse", "--short=10", "HEAD")
    return f"commit {commit}" + ("" if changed == "unknown" else " with changes")


def _crates() -> str:
    lock = (ROOT / "bench" / "peers" / "rust" / "Cargo.lock").read_text()
    versions = dict(re.findall(r'name = "(.*)"\nversion = "(.*)"', lock))
    return ", ".join(f"{name} {versions[name]}" for name in _CRATES)
