# SPDX-License-Identifier: MIT
"""Validates the updates of a response that is a stream."""

from __future__ import annotations

from itertools import islice

from google.protobuf.message import DecodeError

from snix.build.protos.build_pb2 import BuildRequest, BuildResponse, BuildUpdate
from tvix_build._core.engine import VIOLATION_LIMIT
from tvix_build._core.report import ValidationError, Violation, ViolationCode, summary
from tvix_build.proxy.shared.checks import InvalidResponseError, check_output, count_outputs
from tvix_build.proxy.shared.services import Service

_OUTPUT = {"outputs[0].output": "entry", "outputs[0].needles": "needles", "outputs[0]": "entry"}
"""The paths in a response with one output, and those in ProducedOutput."""


class UpdateCheck:
    """Checks the updates of one response, in their order.

    Args:
        service: the service of the call.
        request: the canonical request.
    """

    def __init__(self, service: Service, request: bytes) -> None:
        self._service = service
        self._request = request
        self._outputs, self._needles = count_outputs(request)
        self._produced: set[int] = set()
        self._failed = False
        self._count = 0

    def check(self, data: bytes) -> bytes:
        """Return the canonical encoding of the next update.

        Raises:
            InvalidResponseError: if it is invalid, or does not belong to the request.
        """
        path = f"updates[{self._count}]"
        self._count += 1
        if self._failed:
            raise InvalidResponseError(f"expected no update after build_failure, found {path}")
        try:
            update = BuildUpdate.FromString(data)
        except DecodeError:
            raise self._violation(
                ViolationCode.MALFORMED,
                path,
                "expected a serialized BuildUpdate, found bytes that do not decode",
            ) from None
        size = update.ByteSize()
        update.DiscardUnknownFields()
        if update.ByteSize() != size:
            raise self._violation(
                ViolationCode.UNKNOWN_FIELD, path, "expected only fields of BuildUpdate"
            )
        kind = update.WhichOneof("kind")
        if kind is None:
            raise self._missing_member(path)
        if kind == "produced_output":
            self._check_output(f"{path}.{kind}", update.produced_output)
        elif kind == "build_failure":
            self._check_failure(f"{path}.{kind}", update.build_failure)
            self._failed = True
        return update.SerializeToString(deterministic=True)

    def finish(self) -> None:
        """Check that the build has ended: with a failure, or with all outputs.

        Raises:
            InvalidResponseError: if outputs are missing.
        """
        if self._failed or len(self._produced) == self._outputs:
            return
        missing = (i for i in range(self._outputs) if i not in self._produced)
        violations = [
            Violation(
                ViolationCode.MISSING_OUTPUT,
                f"outputs[{i}]",
                "expected an update with this output or with build_failure, found the end",
            )
            for i in islice(missing, VIOLATION_LIMIT)
        ]
        raise self._error(ValidationError(violations, self._outputs - len(self._produced)))

    def _check_output(self, path: str, output: BuildUpdate.ProducedOutput) -> None:
        entry = output.entry if output.HasField("entry") else None
        one = BuildResponse.Output(output=entry, needles=output.needles)
        data = BuildResponse(outputs=[one]).SerializeToString()
        try:
            check_output(self._service, data, self._needles)
        except ValidationError as error:
            violations = [
                Violation(found.code, f"{path}.{_path_of(found.path)}", found.message)
                for found in error.violations
            ]
            raise self._error(ValidationError(violations, error.violation_count)) from None
        if output.idx >= self._outputs:
            raise self._violation(
                ViolationCode.UNEXPECTED_OUTPUT,
                f"{path}.idx",
                f"expected the index of one of {self._outputs} outputs, found {output.idx}",
            )
        if output.idx in self._produced:
            raise self._violation(
                ViolationCode.DUPLICATE,
                f"{path}.idx",
                f"expected each output once, found output {output.idx} again",
            )
        self._produced.add(output.idx)

    def _check_failure(self, path: str, failure: BuildUpdate.BuildFailure) -> None:
        kind = failure.WhichOneof("kind")
        if kind is None:
            raise self._missing_member(path)
        if kind != "missing_output":
            return
        missing = failure.missing_output.output
        outputs = BuildRequest.FromString(self._request).outputs
        if all(one != missing or i in self._produced for i, one in enumerate(outputs)):
            raise self._violation(
                ViolationCode.UNEXPECTED_OUTPUT,
                f"{path}.missing_output.output",
                f"expected an output of the request that no update has, found {missing!r:.100}",
            )

    def _missing_member(self, path: str) -> InvalidResponseError:
        return self._violation(
            ViolationCode.REQUIRED, f"{path}.kind", "expected one member of the oneof, found none"
        )

    def _violation(self, code: ViolationCode, path: str, message: str) -> InvalidResponseError:
        return self._error(ValidationError([Violation(code, path, message)], 1))

    def _error(self, found: ValidationError) -> InvalidResponseError:
        return InvalidResponseError(
            f"expected valid updates of {self._service.label}, found {summary(found)}",
            found.violations,
            found.violation_count,
        )


def _path_of(path: str) -> str:
    """Return the path in a ProducedOutput of a path in a response with one output."""
    for old, new in _OUTPUT.items():
        if path.startswith(old):
            return new + path.removeprefix(old)
    return path
