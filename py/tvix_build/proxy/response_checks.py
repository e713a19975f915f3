# SPDX-License-Identifier: MIT
"""Checks what a builder answers."""

from __future__ import annotations

from tvix_build.proxy.builder_protocol import Answer, Builder, Call
from tvix_build.proxy.shared.checks import InvalidAnswer, check_answer_aside
from tvix_build.proxy.status import invalid_answer


class CheckedAnswers:
    """Passes valid answers on, in their canonical encoding; others are INTERNAL."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    async def build(self, call: Call) -> Answer:
        """The answer to a call, checked."""
        answer = await self._builder.build(call)
        try:
            data = await check_answer_aside(call.service, answer.data, call.request)
        except InvalidAnswer as error:
            raise invalid_answer(error) from None
        return answer if data is answer.data else answer._replace(data=data)
