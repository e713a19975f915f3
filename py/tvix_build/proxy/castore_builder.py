# SPDX-License-Identifier: MIT
"""The builder at the end of the chain that has a castore: the sandbox, or that of an engine."""

from __future__ import annotations

import grpc

from tvix_build.builders import (
    Builder,
    BuilderError,
    BuildFailedError,
    RefusedError,
    UnavailableError,
)
from tvix_build.proxy.builder_protocol import Call, Response
from tvix_build.proxy.logs import log_castore_failure
from tvix_build.proxy.status import castore_unavailable, status_error


class CastoreBuilder:
    """Runs calls with a builder of `tvix_build.builders`. A cancelled call ends its build.

    Args:
        builder: the builder.
    """

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    async def build(self, call: Call) -> Response:
        """Run a request.

        Raises:
            StatusError: if the builder refuses the request, cannot run, or the build fails.
        """
        try:
            result = await self._builder.build_async(call.request, schema=call.service.schema)
        except RefusedError as error:
            code = grpc.StatusCode.FAILED_PRECONDITION
            raise status_error(code, "REQUEST_REFUSED", str(error)) from None
        except UnavailableError as error:
            code = grpc.StatusCode.UNAVAILABLE
            raise status_error(code, "BUILDER_UNAVAILABLE", str(error)) from None
        except BuildFailedError as error:
            message = f"{error}; the log is the blob {error.record.log_digest.hex()}"
            raise status_error(grpc.StatusCode.ABORTED, "BUILD_FAILED", message) from None
        except BuilderError as error:
            raise status_error(grpc.StatusCode.INTERNAL, "BUILDER_FAILED", str(error)) from None
        except grpc.RpcError as error:
            log_castore_failure(error)
            raise castore_unavailable() from None
        return Response(result.response)
