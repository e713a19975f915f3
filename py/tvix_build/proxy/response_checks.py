# SPDX-License-Identifier: MIT
"""Validates the responses of a builder."""

from __future__ import annotations

import asyncio

from tvix_build.proxy.builder_protocol import Builder, Call, Metadata, Response, Updates
from tvix_build.proxy.shared.checks import LARGE, InvalidResponseError, check_response_async
from tvix_build.proxy.status import invalid_response
from tvix_build.proxy.update_checks import UpdateCheck


class ResponseChecker:
    """Returns valid responses in their canonical encoding; an invalid one becomes INTERNAL."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    async def build(self, call: Call) -> Response:
        """Return the validated response to a call."""
        try:
            if call.updates is not None:
                return await self._stream(call, call.updates)
            response = await self._builder.build(call)
            data = await check_response_async(call.service, response.data, call.request)
        except InvalidResponseError as error:
            raise invalid_response(error) from None
        return response if data is response.data else response._replace(data=data)

    async def _stream(self, call: Call, updates: Updates) -> Response:
        check = UpdateCheck(call.service, call.request)
        response = await self._builder.build(call._replace(updates=_Checked(updates, check)))
        check.finish()
        return response


class _Checked:
    """Sends the updates that are valid."""

    def __init__(self, updates: Updates, check: UpdateCheck) -> None:
        self._updates = updates
        self._check = check

    async def begin(self, initial_metadata: Metadata) -> None:
        """As `Updates.begin`."""
        await self._updates.begin(initial_metadata)

    async def send(self, update: bytes) -> None:
        """As `Updates.send`."""
        try:
            if len(update) < LARGE:
                checked = self._check.check(update)
            else:
                checked = await asyncio.to_thread(self._check.check, update)
        except InvalidResponseError as error:
            raise invalid_response(error) from None
        await self._updates.send(checked)
