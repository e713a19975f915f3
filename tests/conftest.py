# SPDX-License-Identifier: MIT
"""Settings of all tests: the cases that Hypothesis makes are the same everywhere, no test has a
deadline, and those of packages that are not installed are skipped."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

OPTIONAL = {
    "test_arrow*.py": ("duckdb", "nanoarrow", "pandas", "polars", "pyarrow"),
    "test_cli_tables*.py": ("pyarrow",),
    "test_duckdb.py": ("duckdb", "pyarrow"),
    "test_polars.py": ("polars",),
    "test_public_api.py": ("duckdb", "polars"),
    "test_spark.py": ("duckdb", "pandas", "pyarrow", "pyspark"),
}
"""Packages that files of tests need besides those of the extra `dev`."""

settings.register_profile("tvix_build", deadline=None, derandomize=True, database=None)
settings.load_profile("tvix_build")

# Hypothesis also draws the constants that it finds in the sources of modules, unless they are in
# site-packages: the cases would depend on how the package is installed.
if hasattr(providers, "_get_local_constants"):
    from hypothesis.internal.constants_ast import Constants

    providers._get_local_constants = Constants


class OptionalModule(pytest.Module):
    """A file of tests that is skipped where a package that it needs is missing."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Return the tests of the file."""
        for pattern, packages in OPTIONAL.items():
            for package in packages if fnmatch(self.path.name, pattern) else ():
                pytest.importorskip(package, reason=f"needs {package}: pip install {package}")
        return super().collect()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    """Pytest's hook."""
    module: pytest.Module = OptionalModule.from_parent(parent, path=module_path)
    return module


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pytest's hook. An exhaustive test is slow, too, so that `-m 'not slow'` leaves it out."""
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.slow)
