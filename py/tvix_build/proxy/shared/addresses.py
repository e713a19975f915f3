# SPDX-License-Identifier: MIT
"""Server addresses in the form of tvix and snix: `grpc+http://host:port`, `grpc+https://host:port`,
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

_PATH_SIZE = 107  # The limit of Linux.


class Address(NamedTuple):
    """The address of a server."""

    text: str
    """The address as given."""
    target: str
    """The address as a gRPC target."""
    tls: bool
    port: int | None
    """None for a unix socket."""

    def with_port(self, port: int) -> str:
        """Return the address with another port, the bound one; unix sockets have none."""
        if self.port is None:
            return self.text
        return f"grpc+http{'s' * self.tls}://{self.target.rpartition(':')[0]}:{port}"


def parse(text: str) -> Address:
    """Parse an address.

    Raises:
        ValueError: if the address has none of the forms in FORMS, or the path of a unix socket is
            too long.
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
