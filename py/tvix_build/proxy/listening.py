# SPDX-License-Identifier: MIT
"""Binds the addresses of the proxy."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Callable
from dataclasses import replace

import grpc
import grpc.aio

from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.shared.channels import Connections

_OTHER_DESCRIPTORS = 200
"""The file descriptors for other things than connections, such as the store and the builders."""
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ServeError(Exception):
    """The proxy cannot start."""


def fitting(connections: Connections, addresses: int) -> Connections:
    """Return the limits with no more connections than the process has file descriptors for."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = max(1, (descriptors - _OTHER_DESCRIPTORS) // addresses)
    return replace(connections, max_connections=min(connections.max_connections, room))


def bind(
    server: grpc.aio.Server,
    address: Address,
    make_credentials: Callable[[], grpc.ServerCredentials] | None,
) -> str:
    """Bind an address: all addresses of the machine that its name has, to one port. Return the
    address with the bound port.

    Raises:
        ServeError: if this is impossible.
    """
    if address.path:
        if _is_served(address.path):
            raise ServeError(f"{address.text}: Address already in use")
        _add(server, address, address.target, make_credentials)
        return address.text
    return _bind_each(
        address, lambda host, port: _add(server, address, f"{host}:{port}", make_credentials)
    )


def reserve(address: Address) -> tuple[str, list[socket.socket]]:
    """Take the port of an address, for processes of this user that then bind it together. Return
    the address with the port, and the sockets that keep it.

    Raises:
        ServeError: if this is impossible.
    """
    sockets: list[socket.socket] = []

    def take(host: str, port: int) -> int:
        try:
            sockets.append(_take(host, port))
        except OSError as error:
            raise ServeError(f"{address.text}: {error.strerror}") from error
        found: int = sockets[-1].getsockname()[1]
        return found

    return _bind_each(address, take), sockets


def _take(host: str, port: int) -> socket.socket:
    """Bind a port, which then other sockets can bind, too."""
    one = socket.socket(_family(host))
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if one.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((host.strip("[]"), port))
        # Only now, so that the port of another server is an error.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        one.close()
        raise
    return one


def _bind_each(address: Address, bind_host: Callable[[str, int], int]) -> str:
    port = address.port or 0
    bound = False
    for host in _hosts(address):
        try:
            port = bind_host(host, port)
        except ServeError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _ABSENT:
                continue
            raise
        bound = True
    if not bound:
        raise ServeError(f"{address.text}: Cannot assign requested address")
    return address.with_port(port)


def _add(
    server: grpc.aio.Server,
    address: Address,
    target: str,
    make_credentials: Callable[[], grpc.ServerCredentials] | None,
) -> int:
    try:
        if address.tls:
            assert make_credentials
            return server.add_secure_port(target, make_credentials())
        return server.add_insecure_port(target)
    except RuntimeError as error:
        reason = _bind_error(address, target)
        message = reason.strerror if reason else error
        raise ServeError(f"{address.text}: {message}") from reason


def _hosts(address: Address) -> list[str]:
    """Return the addresses of a host, in the form of targets."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServeError(f"{address.text}: {error.strerror}") from None
    hosts = dict.fromkeys(str(one[4][0]) for one in found)
    return [f"[{host}]" if ":" in host else host for host in hosts]


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if host.startswith("[") else socket.AF_INET


def _is_served(path: str) -> bool:
    """Return whether a server listens on a unix socket. gRPC would replace that socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _bind_error(address: Address, target: str) -> OSError | None:
    """Return why a target cannot be bound, which gRPC's error lacks; None if it can be."""
    host, _, port = target.rpartition(":")
    try:
        if address.path:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(address.path)
        else:
            with socket.socket(_family(host)) as probe:
                probe.bind((host.strip("[]"), int(port)))
    except OSError as error:
        return error
    return None
