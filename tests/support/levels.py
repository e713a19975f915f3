# SPDX-License-Identifier: MIT
"""A pytest plugin (`-p levels`) that runs tests at the CPU level in TVIXB_CPU_LEVEL, with the test
build of the extension module at the path in TVIX_BUILD_NATIVE. Skips all tests if this CPU does not
support the level."""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

NATIVE = "tvix_build._native"
LEVEL = os.environ["TVIXB_CPU_LEVEL"]


def _load(file: str) -> None:
    """Import the extension module from a file, before tvix_build imports its own."""
    spec = spec_from_file_location(NATIVE, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[NATIVE] = module
    spec.loader.exec_module(module)


def _has(level: str) -> bool:
    return level == "plain" or level in Path("/proc/cpuinfo").read_text().split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all tests if this CPU does not support the level. A hook of pytest."""
    if not _has(LEVEL):
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"this CPU has no {LEVEL}"))


_load(os.environ["TVIX_BUILD_NATIVE"])
