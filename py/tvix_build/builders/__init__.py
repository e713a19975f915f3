# SPDX-License-Identifier: MIT
"""Builders run build requests.

from tvix_build.builders import SandboxBuilder
from tvix_build.castore import CastoreStore

with CastoreStore("castore") as castore:
    result = SandboxBuilder(castore).build(request)
"""

from tvix_build._core.names import set_public_module
from tvix_build.builders.interface import (
    Builder,
    BuilderError,
    BuildFailedError,
    BuildRecord,
    BuildResult,
    MissingInputsError,
    RefusedError,
    UnavailableError,
)
from tvix_build.builders.limits import Limits
from tvix_build.builders.sandbox import SandboxBuilder

__all__ = [
    "BuildFailedError",
    "BuildRecord",
    "BuildResult",
    "Builder",
    "BuilderError",
    "Limits",
    "MissingInputsError",
    "RefusedError",
    "SandboxBuilder",
    "UnavailableError",
]

set_public_module(globals())
