# SPDX-License-Identifier: MIT
"""Plans: all requests of an evaluation at once. docs/plan-format.md defines their format.

from tvix_build.builders import SandboxBuilder
from tvix_build.castore import CastoreStore
from tvix_build.plan import PlanState, run

with CastoreStore("castore") as castore, PlanState("state") as state:
    digest = state.put_plan(plan)
    result = run(digest, [SandboxBuilder(castore)], state, castore=castore)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tvix_build._core.names import publish

if TYPE_CHECKING:
    from tvix_build.plan.derivations import from_derivations
    from tvix_build.plan.differences import PlanDifference, RootCause, compare_plans
    from tvix_build.plan.events import Event, Finished, Logged, OnEvent, Queued, Started
    from tvix_build.plan.graph import PlanGraph, Statistics
    from tvix_build.plan.running import PlanResult, run, run_async
    from tvix_build.plan.scheduling import BuildSlots
    from tvix_build.plan.state import (
        PlanRunningError,
        PlanState,
        Run,
        Status,
        StepResult,
        UnknownPlanError,
        UnknownStepError,
    )

__all__ = [
    "BuildSlots",
    "Event",
    "Finished",
    "Logged",
    "OnEvent",
    "PlanDifference",
    "PlanGraph",
    "PlanResult",
    "PlanRunningError",
    "PlanState",
    "Queued",
    "RootCause",
    "Run",
    "Started",
    "Statistics",
    "Status",
    "StepResult",
    "UnknownPlanError",
    "UnknownStepError",
    "compare_plans",
    "from_derivations",
    "run",
    "run_async",
]
_MODULES = {
    "derivations": ("from_derivations",),
    "differences": ("PlanDifference", "RootCause", "compare_plans"),
    "events": ("Event", "Finished", "Logged", "OnEvent", "Queued", "Started"),
    "graph": ("PlanGraph", "Statistics"),
    "running": ("PlanResult", "run", "run_async"),
    "scheduling": ("BuildSlots",),
    "state": (
        "PlanRunningError",
        "PlanState",
        "Run",
        "Status",
        "StepResult",
        "UnknownPlanError",
        "UnknownStepError",
    ),
}


def __getattr__(name: str) -> Any:
    # Not imported before they are used, because each import of a module below, such as the messages
    # of plans, runs this file.
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{module}"), name)
            publish(__name__, value)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
