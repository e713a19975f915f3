# SPDX-License-Identifier: MIT
"""Opens the builders of this process with the options of commands: the sandbox, or the client of an
engine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from tvix_build.builders import Limits, SandboxBuilder, UnavailableError
from tvix_build.castore import CastoreStore
from tvix_build.cli.extras import extra

if TYPE_CHECKING:
    import grpc

    from tvix_build.builders.reapi import ReapiBuilder


def make_limits(limits: Mapping[str, int], timeout: float | None = None) -> Limits:
    """Return limits of builds, with the limit of time in seconds, if any."""
    found = Limits(**limits)
    return found if timeout is None else replace(found, seconds=timeout)


def open_sandbox(castore: CastoreStore, limits: Limits) -> SandboxBuilder:
    """Return the sandbox.

    Raises:
        click.ClickException: if this machine has no sandbox.
    """
    try:
        return SandboxBuilder(castore, limits=limits)
    except UnavailableError as error:
        raise click.ClickException(str(error)) from None


def open_engine(
    address: str,
    castore: CastoreStore,
    *,
    credentials: grpc.ChannelCredentials | None,
    properties: Iterable[tuple[str, str, str | None]],
    cache: bool = True,
    timeout: float | None = None,
) -> ReapiBuilder:
    """Return the builder that runs requests on an engine.

    Args:
        address: the address of the engine.
        castore: the castore store.
        credentials: the TLS credentials, or None.
        properties: name, value and constraint of each platform property.
        cache: whether cached results are returned.
        timeout: the limit of time in seconds, or None.
    """
    with extra("grpc"):
        from tvix_build.builders.reapi import Property, ReapiBuilder

        return ReapiBuilder(
            address,
            castore,
            credentials=credentials,
            properties=[Property(*one) for one in properties],
            cache=cache,
            timeout=None if timeout is None else math.ceil(timeout),
        )
