# SPDX-License-Identifier: MIT
"""Identifies callers by their connections and client certificates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio

from tvix_build.proxy.builder_protocol import Caller, Metadata
from tvix_build.proxy.rates import Rates
from tvix_build.proxy.status import status_error

if TYPE_CHECKING:
    from tvix_build.proxy.tokens import Tokens

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


@dataclass(frozen=True)
class Certificates:
    """Identifies callers by their client certificates.

    Attributes:
        names: the patterns of allowed names; all names if empty. `*` stands for characters other
            than `.` and `/`.
    """

    names: Sequence[str] = ()

    def name(self, certificate: dict[str, Any]) -> str:
        """Return the name of the owner of a certificate: its first alternative name that is
        allowed, or its common name.

        Raises:
            StatusError: if no alternative name is allowed.
        """
        alternatives = certificate.get("x509_subject_alternative_name", ())
        names: list[str] = [one.decode(errors="replace") for one in alternatives]
        if not self.names:
            common: bytes = certificate.get("x509_common_name", (b"",))[0]
            names.append(common.decode(errors="replace"))
            return names[0]
        for name in names:
            if any(_matches(name, pattern) for pattern in self.names):
                return name
        raise status_error(
            grpc.StatusCode.PERMISSION_DENIED,
            "NAME_NOT_ALLOWED",
            f"expected a client certificate with an allowed name, found {', '.join(names)!r:.200}",
        )


class Callers:
    """Identifies callers, and counts their calls.

    Args:
        certificates: how client certificates identify callers; None without them.
        tokens: how tokens identify callers; None if they need no token.
        rates: the limits of the rates of calls; None for no limit.
    """

    def __init__(
        self,
        certificates: Certificates | None,
        tokens: Tokens | None = None,
        rates: Rates | None = None,
    ) -> None:
        self._certificates = certificates
        self._tokens = tokens
        self._rates = rates

    def identify(self, context: _Context, metadata: Metadata) -> Caller:
        """Return the caller of a call.

        Raises:
            StatusError: if the caller is not allowed.
        """
        caller = Caller(context.peer())
        if self._certificates is not None:
            found: Any = context.auth_context()
            pem = found.get("x509_pem_cert", (b"",))[0]
            if pem:  # Otherwise, the address has no TLS.
                caller = caller._replace(name=self._certificates.name(found), certificate=pem)
        if self._tokens is not None:
            caller = caller._replace(name=self._tokens.name(metadata))
        return caller

    def admit(self, context: _Context, metadata: Metadata) -> Caller:
        """Count a call, and return its caller.

        Raises:
            StatusError: if the caller is not allowed, or calls too often.
        """
        caller = self.identify(context, metadata)
        if self._rates is not None:
            self._rates.count(caller)
        return caller


def _matches(name: str, pattern: str) -> bool:
    expression = "[^./]*".join(map(re.escape, pattern.split("*")))
    return re.fullmatch(expression, name) is not None
