# SPDX-License-Identifier: MIT
"""Addresses in upstream's form: `grpc+http://host:port`, `grpc+https://host:port`,
`grpc+unix:/path`."""

from __future__ import annotations

import re
from typing import NamedTuple

FORMS = "grpc+http://HOST:PORT, grpc+https://HOST:PORT or grpc+unix:/PATH"
_NETWORK = re.compile(
    r"grpc\+(?P<scheme>https?)://(?P<host>[^\s/?#@:\[\]]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})/?",
    re.ASCII,
)
_UNIX = re.compile(r"grpc\+unix:(?://)?(?P<path>/(?!/)[^\0]*[^/\0])", re.DOTALL)

_PATH_SIZE = 107  # A limit of the system.


class Address(NamedTuple):
    """Where a server is."""

    text: str
    """As it was given."""
    target: str
    """As gRPC says it."""
    tls: bool
    port: int | None
    """None for a unix socket."""

    def with_port(self, port: int) -> str:
        """The address with the port that was bound."""
        if self.port is None:
            return self.text
        return f"grpc+http{'s' * self.tls}://{self.target.rpartition(':')[0]}:{port}"


def parse(text: str) -> Address:
    """Read an address.

    Raises:
        ValueError: if it has none of the forms.
    """
    match = _UNIX.fullmatch(text)
    if match is not None:
        if len(match["path"].encode()) > _PATH_SIZE:
            raise ValueError(f"expected a path of at most {_PATH_SIZE} bytes, found {text!r}")
        return Address(text, "unix:" + match["path"], False, None)
    match = _NETWORK.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"expected {FORMS}, found {text!r}")
    port = int(match["port"])
    return Address(text, f"{match['host']}:{port}", match["scheme"] == "https", port)
