# SPDX-License-Identifier: MIT
"""Builds requests with several builders: chooses one, retries if it fails, and checks what it
returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from tvix_build._core.report import Schema
from tvix_build.builders import (
    Builder,
    BuildFailedError,
    BuildRecord,
    BuildResult,
    RefusedError,
    UnavailableError,
)
from tvix_build.builders.interface import OnLog
from tvix_build.plan.wire import base_name, read_outputs
from tvix_build.proxy.shared.checks import InvalidResponseError, check_response
from tvix_build.proxy.shared.services import SERVICES


def default_backoff(failures: int) -> float:
    """Return the seconds to wait after a number of failures of a builder: 1, 2, 4, up to 60."""
    return float(min(2 ** (failures - 1), 60))


class Resolved(NamedTuple):
    """The request of a step with all its inputs."""

    encoding: bytes
    digest: bytes
    schema: Schema


class Failure(NamedTuple):
    """Why a request was not built."""

    reason: str
    record: BuildRecord | None = None


class Attempts:
    """Builds requests with several builders.

    A request goes to the builder with the fewest running builds for its weight. If that refuses the
    request, or is permanently unavailable, the next one gets it. If it is unavailable, the request
    is retried, first with the builders that have not failed.

    Args:
        builders: the builders.
        weights: a number for each: a builder of weight 2 gets twice as many builds as one of 1.
        limit: the seconds that a build may take, or None.
        retries: how often a request is retried.
        backoff: returns the seconds to wait before a retry, from the number of failures.
    """

    def __init__(
        self,
        builders: Sequence[Builder],
        weights: Sequence[float],
        *,
        limit: float | None,
        retries: int,
        backoff: Callable[[int], float],
    ) -> None:
        self._builders = builders
        self._weights = weights
        self._limit = limit
        self._retries = retries
        self._backoff = backoff
        self._running = [0] * len(builders)

    async def build(
        self, request: Resolved, on_start: Callable[[int], object], on_log: OnLog | None
    ) -> BuildResult[bytes] | Failure:
        """Return the checked result of a request, or why there is none.

        Args:
            request: the request.
            on_start: called with the number of the builder before each attempt.
            on_log: called with the output of the command, possibly in another thread.
        """
        failures = [0] * len(self._builders)
        refused: dict[int, str] = {}
        while True:
            builder = self._choose(failures, refused)
            if builder is None:
                return Failure("; ".join(dict.fromkeys(refused.values())))
            on_start(builder)
            self._running[builder] += 1
            try:
                return await self._try(self._builders[builder], request, on_log)
            except RefusedError as error:
                refused[builder] = str(error)
            except UnavailableError as error:
                if error.permanent:
                    refused[builder] = str(error)
                else:
                    failures[builder] += 1
                    count = sum(failures)
                    if count > self._retries:
                        return Failure(f"{error}; {count} attempt{'s' * (count > 1)} failed")
            finally:
                self._running[builder] -= 1
            following = self._choose(failures, refused)
            if following is not None and failures[following]:
                await asyncio.sleep(self._backoff(failures[following]))

    def _choose(self, failures: Sequence[int], refused: Mapping[int, str]) -> int | None:
        """Return the builder of the next attempt; None if none can build the request."""
        return min(
            (one for one in range(len(self._builders)) if one not in refused),
            key=lambda one: (failures[one], self._running[one] / self._weights[one]),
            default=None,
        )

    async def _try(
        self, builder: Builder, request: Resolved, on_log: OnLog | None
    ) -> BuildResult[bytes] | Failure:
        """Return the result of one attempt.

        Raises:
            RefusedError, UnavailableError: as the builder.
        """
        build = builder.build_async(request.encoding, schema=request.schema, on_log=on_log)
        try:
            result = await (build if self._limit is None else _limited(build, self._limit))
            return result if isinstance(result, Failure) else _check(request, result)
        except (RefusedError, UnavailableError):
            raise
        except BuildFailedError as error:
            return Failure(error.reason, error.record)
        except Exception as error:  # A defect of a builder must not end the other builds.
            return Failure(f"the builder failed: {type(error).__name__}: {error}")


async def _limited(
    build: Coroutine[Any, Any, BuildResult[Any]], limit: float
) -> BuildResult[Any] | Failure:
    """Return the result of a build. If it takes longer than the limit, cancel it."""
    # Not asyncio.wait_for, which may raise a TimeoutError of the build itself.
    task = asyncio.ensure_future(build)
    try:
        done, _ = await asyncio.wait([task], timeout=limit)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    return task.result() if done else Failure(f"the limit of time, {limit:g} s, is exceeded")


def _check(request: Resolved, result: BuildResult[Any]) -> BuildResult[bytes] | Failure:
    """Return a result, or what is wrong with it."""
    try:
        response = check_response(SERVICES[request.schema], result.response, request.encoding)
    except InvalidResponseError as error:
        return Failure(str(error))
    found = result.record.request_digest
    if found != request.digest:
        return Failure(f"expected a build of this request, found one of {found.hex()}")
    expected = read_outputs(request.encoding, request.schema)
    if sorted(expected) != sorted(base_name(path.encode()) for path in result.outputs):
        return Failure(f"expected nodes of the outputs, found {', '.join(result.outputs)}")
    return BuildResult(response, result.outputs, result.record)
