# SPDX-License-Identifier: MIT
"""The certificate of the proxy, which can be replaced while it serves."""

from __future__ import annotations

from typing import Any

import grpc


class Certificate:
    """A certificate with its key.

    Args:
        certificate, key: both in PEM.
        client_ca: the CA certificates that verify client certificates, in PEM, which are then
            required; None to require none.
    """

    def __init__(self, certificate: bytes, key: bytes, client_ca: bytes | None = None) -> None:
        self._requires_clients = client_ca is not None
        self._current = grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow `replace`, for one port: gRPC gets the first certificate
        for one port only."""
        known = self._current

        def fetch() -> Any:  # The stubs lack None.
            """Return a new certificate, once. gRPC calls this for each connection, in its
            threads."""
            nonlocal known
            if known is self._current:
                return None
            known = self._current
            return known

        return grpc.dynamic_ssl_server_credentials(known, fetch, self._requires_clients)

    def replace(self, other: Certificate) -> None:
        """Use another certificate for new connections. Whether client certificates are required
        does not change."""
        self._current = other._current
