# SPDX-License-Identifier: MIT
"""Plans: all requests of an evaluation at once. docs/plan-format.md defines their format."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tvix_build._core.names import publish

if TYPE_CHECKING:
    from tvix_build.plan.derivations import from_derivations
    from tvix_build.plan.differences import PlanDifference, RootCause, compare_plans
    from tvix_build.plan.graph import PlanGraph, Statistics

__all__ = [
    "PlanDifference",
    "PlanGraph",
    "RootCause",
    "Statistics",
    "compare_plans",
    "from_derivations",
]
_MODULES = ("derivations", "differences", "graph")


def __getattr__(name: str) -> Any:
    # Not imported before they are used, because each import of a module below, such as the messages
    # of plans, runs this file.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module in _MODULES:
        value = getattr(import_module(f"{__name__}.{module}"), name, None)
        if value is not None:
            publish(__name__, value)
            globals()[name] = value
            return value
    raise AssertionError(name)
