# SPDX-License-Identifier: MIT
"""Addresses of Remote Execution engines: `reapi+grpc://HOST:PORT/INSTANCE`, with TLS
`reapi+grpcs://HOST:PORT/INSTANCE`."""

from __future__ import annotations

import re
from typing import NamedTuple

FORMS = "reapi+grpc://HOST:PORT/INSTANCE or reapi+grpcs://HOST:PORT/INSTANCE"
_ADDRESS = re.compile(
    r"reapi\+grpc(?P<tls>s?)://"
    r"(?P<target>(?:[^\s/?#@:\[\]]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5}))"
    r"(?:/(?P<instance>[^\s?#]*))?",
    re.ASCII,
)


class Address(NamedTuple):
    """The address of an engine.

    Attributes:
        text: the address as given.
        target: the gRPC target.
        tls: whether the connection uses TLS.
        instance: the name of the instance, often empty.
    """

    text: str
    target: str
    tls: bool
    instance: str


def parse(text: str) -> Address:
    """Parse an address.

    Raises:
        ValueError: if it has none of the forms in FORMS.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"expected {FORMS}, found {text!r}")
    return Address(text, match["target"], bool(match["tls"]), (match["instance"] or "").rstrip("/"))
