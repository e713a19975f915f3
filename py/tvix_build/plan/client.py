# SPDX-License-Identifier: MIT
"""A client of PlanService, such as that of `tvix-build serve --plans`. It needs grpcio:
`pip install 'tvix-build[grpc]'`.

    from tvix_build.plan.client import PlanClient

    with PlanClient("grpc+http://127.0.0.1:8000") as client:
        digest = client.submit(plan).plan
        for event in client.watch(digest):
            print(event.number, event.kind)

If a call fails, the client raises gRPC's own `grpc.RpcError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message

from tvix_build._core.ranges import BytesLike
from tvix_build.plan.graph import PlanGraph
from tvix_build.plan.v1 import rpc_plan_pb2 as rpc
from tvix_build.proxy.shared.channels import MAX_MESSAGE_SIZE
from tvix_build.proxy.shared.connecting import open_channel

__all__ = ["PlanClient", "Submitted"]

_SERVICE = "/tvix_build.plan.v1.PlanService"
_DIGESTS_AT_ONCE = 1000
_UPLOADS = 3


class Submitted(NamedTuple):
    """A plan that was submitted."""

    plan: bytes
    """The digest of the plan."""
    sent: int
    """The number of steps that were sent."""


class PlanClient:
    """A client of PlanService. It is safe to use from several threads. Close it, or use it as a
    context manager.

    Args:
        address: the address of the server: `grpc+http://HOST:PORT`, `grpc+https://HOST:PORT` or
            `grpc+unix:/PATH`.
        credentials: the TLS credentials, for `grpc+https` only. The default trusts the certificate
            authorities that gRPC trusts.

    Raises:
        ValueError: if the address has none of these forms, or `credentials` are given for an
            address without TLS.
    """

    def __init__(self, address: str, *, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._channel = open_channel(address, credentials, MAX_MESSAGE_SIZE)
        channel: Any = self._channel

        def method(kind: str, name: str, request: Any, response: type[Message]) -> Any:
            return getattr(channel, kind)(
                f"{_SERVICE}/{name}",
                request_serializer=request and request.SerializeToString,
                response_deserializer=response.FromString,
            )

        self._find_missing = method(
            *("stream_stream", "FindMissingSteps"),
            *(rpc.FindMissingStepsRequest, rpc.FindMissingStepsResponse),
        )
        # Steps are bytes.
        self._submit = method("stream_unary", "SubmitSteps", None, rpc.SubmitStepsResponse)
        self._start = method(
            "unary_unary", "StartPlan", rpc.StartPlanRequest, rpc.StartPlanResponse
        )
        self._watch = method("unary_stream", "WatchPlan", rpc.WatchPlanRequest, rpc.Event)
        self._cancel = method(
            "unary_unary", "CancelPlan", rpc.CancelPlanRequest, rpc.CancelPlanResponse
        )
        self._delete = method(
            "unary_unary", "DeletePlan", rpc.DeletePlanRequest, rpc.DeletePlanResponse
        )
        self._list = method(
            "unary_stream", "ListPlans", rpc.ListPlansRequest, rpc.ListPlansResponse
        )

    def submit(
        self, plan: BytesLike | Message, *, fail_fast: bool = False, timeout: float | None = None
    ) -> Submitted:
        """Start a plan, after uploading the steps that the server lacks. If it lacks none, only the
        digests of the roots are sent.

        Args:
            plan: the plan.
            fail_fast: whether no further build starts after the first failure.
            timeout: the seconds that a build may take; None for no limit.

        Raises:
            ValidationError: if the plan is invalid.
            grpc.RpcError: if a call fails.
        """
        graph = PlanGraph(plan)
        request = rpc.StartPlanRequest(
            roots=[graph.digests[root] for root in graph.roots],
            fail_fast=fail_fast,
            timeout=timeout or 0,
        )
        sent = 0
        for _ in range(_UPLOADS):
            try:
                return Submitted(self._start(request).plan, sent)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                    raise
            # More than one time if another client deletes a plan with the same steps meanwhile.
            numbers = {digest: number for number, digest in enumerate(graph.digests)}
            missing = self._missing_steps(graph.digests)
            self._submit(graph.encoding(numbers[digest]) for digest in missing)
            sent += len(missing)
        return Submitted(self._start(request).plan, sent)

    def watch(
        self,
        plan: bytes,
        *,
        first: int = 0,
        kinds: Iterable[rpc.Event.Kind] = (),
        step: bytes = b"",
    ) -> Iterator[rpc.Event]:
        """Yield the events of the last run of a plan: those that happened, then each when it
        happens, until the run ends.

        Args:
            plan: the digest of the plan.
            first: the number of the first event.
            kinds: the kinds of the events; all if empty.
            step: the digest of a step, to get only its events and those of the plan itself.

        Raises:
            grpc.RpcError: if the call fails.
        """
        yield from self._watch(rpc.WatchPlanRequest(plan=plan, first=first, kinds=kinds, step=step))

    def cancel(self, plan: bytes) -> None:
        """End the builds of a plan, if it is running.

        Raises:
            grpc.RpcError: if the call fails.
        """
        self._cancel(rpc.CancelPlanRequest(plan=plan))

    def delete(self, plan: bytes) -> int:
        """Delete a plan that is not running, its events, and the steps that no other plan has.
        Return the number of these steps. Stored builds remain.

        Raises:
            grpc.RpcError: if the call fails.
        """
        steps: int = self._delete(rpc.DeletePlanRequest(plan=plan)).steps
        return steps

    def plans(self) -> list[rpc.ListPlansResponse]:
        """Return all plans that were started, the last one first.

        Raises:
            grpc.RpcError: if the call fails.
        """
        return list(self._list(rpc.ListPlansRequest()))

    def close(self) -> None:
        """Close the connection. Leaving the context also closes it."""
        self._channel.close()

    def __enter__(self) -> PlanClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _missing_steps(self, digests: Sequence[bytes]) -> list[bytes]:
        requests = (
            rpc.FindMissingStepsRequest(digests=digests[i : i + _DIGESTS_AT_ONCE])
            for i in range(0, len(digests), _DIGESTS_AT_ONCE)
        )
        return [digest for response in self._find_missing(requests) for digest in response.digests]
