# SPDX-License-Identifier: MIT
"""Validates the responses of a builder."""

from __future__ import annotations

from tvix_build.proxy.builder_protocol import Builder, Call, Response
from tvix_build.proxy.shared.checks import InvalidResponseError, check_response_async
from tvix_build.proxy.status import invalid_response


class ResponseChecker:
    """Returns valid responses in their canonical encoding; an invalid one becomes INTERNAL."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    async def build(self, call: Call) -> Response:
        """Return the validated response to a call."""
        response = await self._builder.build(call)
        try:
            data = await check_response_async(call.service, response.data, call.request)
        except InvalidResponseError as error:
            raise invalid_response(error) from None
        return response if data is response.data else response._replace(data=data)
