# SPDX-License-Identifier: MIT
"""Server addresses in the form of tvix and snix: `grpc+http://host:port`, `grpc+https://host:port`,
`grpc+unix:/path`."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import quote

FORMS = "grpc+http://HOST:PORT, grpc+https://HOST:PORT or grpc+unix:/PATH"
_NETWORK = re.compile(
    r"grpc\+(?P<scheme>https?)://(?P<host>[^\s/?#@:\[\]]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?"
    r"/?(?P<query>\?wait-connect=[01])?",
    re.ASCII,
)
_UNIX = re.compile(
    r"grpc\+unix:(?://)?(?P<path>/(?!/)[^\0?]*[^/\0?])(?P<query>\?wait-connect=[01])?", re.DOTALL
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
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
    path: str = ""
    """The path of a unix socket."""
    wait: bool = False
    """Whether a client waits for the connection before it starts."""

    @property
    def host(self) -> str:
        """The host, without brackets; empty for a unix socket."""
        return "" if self.path else self.target.rpartition(":")[0].strip("[]")

    @property
    def is_local(self) -> bool:
        """Whether the address is a unix socket or a loopback address."""
        return bool(self.path) or is_loopback(self.host)

    def with_port(self, port: int) -> str:
        """Return the address with another port, the bound one; unix sockets have none."""
        if self.port is None:
            return self.text
        return f"grpc+http{'s' * self.tls}://{self.target.rpartition(':')[0]}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a host is `localhost` or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def parse(text: str) -> Address:
    """Parse an address. Without a port, it is that of HTTP or HTTPS. At the end,
    `?wait-connect=1` is allowed, as in tvix and snix.

    Raises:
        ValueError: if the address has none of the forms in FORMS, or the path of a unix socket is
            too long or contains a comma, which gRPC does not support.
    """
    match = _UNIX.fullmatch(text)
    if match is not None:
        path = match["path"]
        if len(os.fsencode(path)) > _PATH_SIZE:
            raise ValueError(f"expected a path of at most {_PATH_SIZE} bytes, found {text!r}")
        if "," in path:
            raise ValueError(f"expected a path without commas, found {text!r}")
        return Address(text, "unix:" + quote(os.fsencode(path)), False, None, path, _waits(match))
    match = _NETWORK.fullmatch(text)
    if match is None or int(match["port"] or 0) > 65535:
        raise ValueError(f"expected {FORMS}, found {text!r}")
    port = int(match["port"] or _DEFAULT_PORTS[match["scheme"]])
    target = f"{match['host']}:{port}"
    return Address(text, target, match["scheme"] == "https", port, wait=_waits(match))


def _waits(match: re.Match[str]) -> bool:
    return bool(match["query"]) and match["query"].endswith("1")
