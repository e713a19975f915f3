# SPDX-License-Identifier: MIT
"""PlanService: stores steps, and runs plans while their clients come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from tvix_build._core.report import Kind, ValidationError, message_type
from tvix_build.plan import PlanRunningError, UnknownStepError
from tvix_build.plan.v1 import rpc_plan_pb2 as rpc
from tvix_build.proxy.plan_runs import PlanRuns
from tvix_build.proxy.service_calls import (
    Context,
    ServiceCalls,
    check_digest,
    complete,
    parse,
    run_in,
    sending,
)
from tvix_build.proxy.shared.checks import Checked, check_message
from tvix_build.proxy.status import invalid, status_error

T = TypeVar("T")
_Requests: TypeAlias = "AsyncIterator[bytes]"

NAME = "tvix_build.plan.v1.PlanService"
MODULE = "tvix_build.plan.v1.rpc_plan_pb2"
_STEP = message_type(Kind.STEP)
_THREADS = 4
_BATCH = 1 << 20
"""The size of the steps that are stored together, in bytes."""


class PlanService:
    """The methods of PlanService.

    Args:
        runs: the plans.
        calls: runs the calls.
    """

    def __init__(self, runs: PlanRuns, calls: ServiceCalls) -> None:
        self._runs = runs
        self._calls = calls
        self._threads = ThreadPoolExecutor(_THREADS, "plans")

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the handlers for gRPC, from bytes to bytes."""
        methods: dict[str, Any] = {
            "FindMissingSteps": grpc.stream_stream_rpc_method_handler(
                sending(self.find_missing_steps)
            ),
            "SubmitSteps": grpc.stream_unary_rpc_method_handler(self.submit_steps),
            "StartPlan": grpc.unary_unary_rpc_method_handler(self.start_plan),
            "WatchPlan": grpc.unary_stream_rpc_method_handler(sending(self.watch_plan)),
            "CancelPlan": grpc.unary_unary_rpc_method_handler(self.cancel_plan),
            "DeletePlan": grpc.unary_unary_rpc_method_handler(self.delete_plan),
            "ListPlans": grpc.unary_stream_rpc_method_handler(sending(self.list_plans)),
        }
        return (grpc.method_handlers_generic_handler(NAME, methods),)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    async def find_missing_steps(
        self, requests: _Requests, context: Context
    ) -> AsyncIterator[bytes]:
        """PlanService.FindMissingSteps."""
        async with self._calls.call(context, f"{NAME}/FindMissingSteps") as outcome:
            async for data in self._calls.received(requests, context, outcome):
                request = parse(rpc.FindMissingStepsRequest, data)
                digests = [check_digest(digest) for digest in request.digests]
                missing = await self._run(self._runs.state.missing_steps, digests)
                response = _encode(rpc.FindMissingStepsResponse(digests=missing))
                outcome.response_size += len(response)
                yield response

    async def submit_steps(self, requests: _Requests, context: Context) -> bytes:
        """PlanService.SubmitSteps."""
        async with self._calls.call(context, f"{NAME}/SubmitSteps") as outcome:
            found = rpc.SubmitStepsResponse()
            steps: list[bytes] = []
            size = 0
            async for data in self._calls.received(requests, context, outcome):
                steps.append(data)
                size += len(data)
                if size >= _BATCH:
                    await self._run(self._add_steps, steps, found)
                    steps, size = [], 0
            await self._run(self._add_steps, steps, found)
            response = _encode(found)
            outcome.response_size = len(response)
        return response

    async def start_plan(self, data: bytes, context: Context) -> bytes:
        """PlanService.StartPlan."""
        async with self._calls.call(context, f"{NAME}/StartPlan", len(data)) as outcome:
            request = parse(rpc.StartPlanRequest, data)
            for root in request.roots:
                check_digest(root)
            if not request.timeout >= 0:
                message = f"expected a timeout of 0 or more seconds, found {request.timeout:g}"
                raise status_error(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TIMEOUT", message)
            try:
                plan = await complete(self._runs.start(request))
            except UnknownStepError as error:
                code = grpc.StatusCode.FAILED_PRECONDITION
                raise status_error(code, "MISSING_STEP", str(error)) from None
            except ValidationError as error:
                raise invalid("plan", "INVALID_PLAN", error) from None
            response = _encode(rpc.StartPlanResponse(plan=plan))
            outcome.response_size = len(response)
        return response

    async def watch_plan(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        """PlanService.WatchPlan."""
        async with self._calls.call(context, f"{NAME}/WatchPlan", len(data)) as outcome:
            request = parse(rpc.WatchPlanRequest, data)
            await self._check_started(request.plan)
            step = check_digest(request.step) if request.step else b""
            first = min(request.first, (1 << 63) - 1)
            async for event in self._runs.watch(request.plan, first, request.kinds, step):
                outcome.response_size += len(event)
                yield event

    async def cancel_plan(self, data: bytes, context: Context) -> bytes:
        """PlanService.CancelPlan."""
        async with self._calls.call(context, f"{NAME}/CancelPlan", len(data)):
            request = parse(rpc.CancelPlanRequest, data)
            await self._check_started(request.plan)
            await complete(self._runs.cancel(request.plan))
        return _encode(rpc.CancelPlanResponse())

    async def delete_plan(self, data: bytes, context: Context) -> bytes:
        """PlanService.DeletePlan."""
        async with self._calls.call(context, f"{NAME}/DeletePlan", len(data)) as outcome:
            request = parse(rpc.DeletePlanRequest, data)
            await self._check_started(request.plan)
            try:
                steps = await complete(self._runs.delete(request.plan))
            except PlanRunningError as error:
                code = grpc.StatusCode.FAILED_PRECONDITION
                raise status_error(code, "RUNNING_PLAN", str(error)) from None
            response = _encode(rpc.DeletePlanResponse(steps=steps))
            outcome.response_size = len(response)
        return response

    async def list_plans(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        """PlanService.ListPlans."""
        async with self._calls.call(context, f"{NAME}/ListPlans", len(data)) as outcome:
            parse(rpc.ListPlansRequest, data)
            for plan in await self._run(self._runs.journal.plans):
                response = _encode(plan)
                outcome.response_size += len(response)
                yield response

    async def _check_started(self, plan: bytes) -> None:
        if await self._run(self._runs.journal.status, check_digest(plan)) is None:
            message = f"no plan with the digest {plan.hex()}"
            raise status_error(grpc.StatusCode.NOT_FOUND, "MISSING_PLAN", message)

    def _add_steps(self, steps: Sequence[bytes], summary: rpc.SubmitStepsResponse) -> None:
        """Check and store steps, and count them. Steps before an invalid one are stored."""
        valid: list[Checked] = []
        try:
            for step in steps:
                valid.append(_check_step(step, summary.received + len(valid)))
        finally:
            found = ((step.digest, step.encoding) for step in valid)
            summary.stored += self._runs.state.put_steps(found)
            summary.received += len(valid)

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        return await run_in(self._threads, function, *args)


def _encode(message: Message) -> bytes:
    return message.SerializeToString()


def _check_step(step: bytes, number: int) -> Checked:
    """Check a step.

    Raises:
        StatusError: if it is invalid, with the violations.
    """
    try:
        return check_message(_STEP, step)
    except ValidationError as error:
        raise invalid(f"step as message {number}", "INVALID_STEP", error) from None
