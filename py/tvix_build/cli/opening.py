# SPDX-License-Identifier: MIT
"""Opens builders with the options of commands: the sandbox, the client of a server, or that of an
engine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from tvix_build.builders import Builder, Limits, SandboxBuilder, UnavailableError
from tvix_build.castore import CastoreStore
from tvix_build.cli.connections import SANDBOX
from tvix_build.cli.extras import extra
from tvix_build.proxy.shared.addresses import Address

if TYPE_CHECKING:
    import grpc

    from tvix_build.builders.reapi.address import Address as ReapiAddress


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


def open_builder(
    address: Address | ReapiAddress,
    castore: CastoreStore,
    *,
    limits: Mapping[str, int],
    timeout: float | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    properties: Iterable[tuple[str, str, str | None]] = (),
    cache: bool = True,
) -> AbstractContextManager[Builder]:
    """Return a builder that keeps inputs and outputs in a castore store.

    Args:
        address: the address: the sandbox, a server, or an engine of Remote Execution.
        castore: the castore store.
        limits: the limits, without that of time. Only the sandbox has others than that of the log.
        timeout: the limit of time in seconds, or None.
        credentials: the TLS credentials, or None.
        properties: name, value and constraint of each platform property of an engine.
        cache: whether an engine returns cached results.

    Raises:
        click.ClickException: if this machine has no sandbox, or lacks a package.
    """
    found = make_limits(limits, timeout)
    if address is SANDBOX:
        return nullcontext(open_sandbox(castore, found))
    with extra("grpc"):
        from tvix_build.builders.reapi import Property, ReapiBuilder
        from tvix_build.builders.server import ServerBuilder

        if isinstance(address, Address):
            return nullcontext(
                ServerBuilder(
                    address.text,
                    castore,
                    credentials=credentials,
                    timeout=timeout,
                    max_log_size=found.log_size,
                )
            )
        return ReapiBuilder(
            address.text,
            castore,
            credentials=credentials,
            properties=[Property(*one) for one in properties],
            cache=cache,
            timeout=None if timeout is None else math.ceil(timeout),
            max_log_size=found.log_size,
        )
