# SPDX-License-Identifier: MIT
"""Distributes calls among builders that are healthy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter

import grpc
import grpc.aio

from tvix_build.proxy.builder_protocol import Call, Response
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.status import StatusError, status_error
from tvix_build.proxy.upstream import Upstream

_REPEAT_SECONDS = 1.0
"""The time between two checks of a builder that is not healthy."""
_CHECK_SECONDS = 5.0
"""How long a builder may take to respond to a check."""
_FAILURES = 5
"""The number of consecutive failures after which a builder is checked before it gets more calls."""


class _Member:
    """A builder and its state.

    Attributes:
        calls: the number of its running calls.
        failures: the number of consecutive failures.
        down: the services that are not healthy.
        doubt: is set when the builder must be checked now.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.calls = 0
        self.failures = 0
        self.down: set[Service] = set()
        self.doubt = asyncio.Event()


class Balancer:
    """Forwards each call to the healthy builder with the fewest running calls.

    A builder is healthy until it does not respond to a health check, responds that it is
    NOT_SERVING, or fails repeatedly. A builder without the health service is healthy if it responds
    at all.

    Args:
        upstreams: the builders.
        services: the services to check.
        interval: the seconds between two checks.
        on_change: is called when the last healthy builder of a service is lost, and when there is
            one again.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        services: Sequence[Service],
        interval: float,
        on_change: Callable[[Service, bool], Awaitable[None]],
    ) -> None:
        self._members = [_Member(one) for one in upstreams]
        self._services = services
        self._interval = interval
        self._on_change = on_change
        self._healthy = dict.fromkeys(services, self._members)
        self._checks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start to check the builders."""
        self._checks = [asyncio.create_task(self._check_again(one)) for one in self._members]

    @property
    def healthy(self) -> int:
        """The number of builders whose services are all healthy."""
        return sum(not one.down for one in self._members)

    async def build(self, call: Call) -> Response:
        """Forward a call.

        Raises:
            StatusError: if no builder is healthy, or the call fails.
        """
        members = self._healthy[call.service]
        if not members:
            raise status_error(
                grpc.StatusCode.UNAVAILABLE,
                "NO_BUILDER",
                f"no builder of {call.service.label} is healthy; try again later",
            )
        member = min(members, key=attrgetter("calls"))
        member.calls += 1
        try:
            response = await member.upstream.build(call)
        except StatusError as error:
            if _is_fault(error):
                await self._failed(member)
            else:
                member.failures = 0
            raise
        finally:
            member.calls -= 1
        member.failures = 0
        return response

    async def close(self) -> None:
        """Stop the checks."""
        for one in self._checks:
            one.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)

    async def _failed(self, member: _Member) -> None:
        """Note a failure. Without a connection, the first one is enough."""
        member.failures += 1
        if member.failures >= _FAILURES or not member.upstream.is_connected:
            member.failures = 0
            for service in self._services:
                await self._set(member, service, False)
            member.doubt.set()

    async def _check_again(self, member: _Member) -> None:
        while True:
            for service in self._services:
                healthy = await member.upstream.is_healthy(service, _CHECK_SECONDS)
                await self._set(member, service, healthy)
            member.doubt.clear()
            doubt = asyncio.create_task(member.doubt.wait())
            await asyncio.wait([doubt], timeout=_REPEAT_SECONDS if member.down else self._interval)
            doubt.cancel()

    async def _set(self, member: _Member, service: Service, healthy: bool) -> None:
        if healthy == (service not in member.down):
            return
        fields = {"builder": member.upstream.address.text, "schema": service.label}
        if healthy:
            member.down.remove(service)
            LOG.info("builder healthy", extra={"fields": fields})
        else:
            member.down.add(service)
            LOG.warning("builder not healthy", extra={"fields": fields})
        before = self._healthy[service]
        after = [one for one in self._members if service not in one.down]
        self._healthy[service] = after
        if bool(after) != bool(before):
            await self._on_change(service, bool(after))


def _is_fault(error: StatusError) -> bool:
    """Return whether a builder is unavailable, or exceeds the proxy's own limit of time."""
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return error.by == "proxy"
    return error.code is grpc.StatusCode.UNAVAILABLE
