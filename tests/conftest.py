# SPDX-License-Identifier: MIT
"""Settings of all tests: the cases that Hypothesis makes are the same everywhere, and no test has a
deadline."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.internal.conjecture import providers

settings.register_profile("tvix_build", deadline=None, derandomize=True, database=None)
settings.load_profile("tvix_build")

# Hypothesis also draws the constants that it finds in the sources of modules, unless they are in
# site-packages: the cases would depend on how the package is installed.
if hasattr(providers, "_get_local_constants"):
    from hypothesis.internal.constants_ast import Constants

    providers._get_local_constants = Constants
