# SPDX-License-Identifier: MIT
"""Runs build requests on engines of the Remote Execution API."""

from tvix_build._core.names import set_public_module
from tvix_build.builders.reapi.builder import EngineError, ReapiBuilder
from tvix_build.builders.reapi.digests import DigestFunction, DigestTable
from tvix_build.builders.reapi.lowering import Lowered, Property, lower
from tvix_build.builders.reapi.raising import Raised, ResultError, raise_result

__all__ = [
    "DigestFunction",
    "DigestTable",
    "EngineError",
    "Lowered",
    "Property",
    "Raised",
    "ReapiBuilder",
    "ResultError",
    "lower",
    "raise_result",
]

set_public_module(globals())
