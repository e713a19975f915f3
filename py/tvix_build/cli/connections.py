# SPDX-License-Identifier: MIT
"""Options of the commands that use gRPC: addresses and certificates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvix_build.proxy.shared.addresses import Address, parse

if TYPE_CHECKING:
    import grpc

    from tvix_build.builders.reapi.address import Address as ReapiAddress
    from tvix_build.proxy.certificate import Certificate

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
SANDBOX = Address("sandbox:", "", False, None)
"""The builder that runs requests in a sandbox on this machine."""


def parse_address(_context: click.Context, _option: click.Parameter, value: Any) -> Any:
    """Parse the address or the addresses of an option.

    Raises:
        click.BadParameter: if an address has another form.
    """
    try:
        if isinstance(value, tuple):
            return tuple(parse(one) for one in value)
        return None if value is None else parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def parse_builder(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> Address | ReapiAddress | None:
    """Parse the address of a builder: `sandbox:`, a Remote Execution engine, or a server.

    Raises:
        click.BadParameter: if it has another form.
    """
    if value is None:
        return None
    if value == SANDBOX.text:
        return SANDBOX
    if value.startswith("reapi+"):
        from tvix_build.builders.reapi import address

        try:
            return address.parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    try:
        return parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error).replace("expected ", "expected sandbox:, ")) from None


def parse_builders(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[Address | ReapiAddress, ...]:
    """As `parse_builder`, for an option that is repeatable."""
    found = (parse_builder(context, option, value) for value in values)
    return tuple(one for one in found if one is not None)


def parse_weighted_builders(
    context: click.Context, option: click.Parameter, values: Sequence[str]
) -> list[tuple[float, Address | ReapiAddress]]:
    """Parse builders of the form [WEIGHT:]ADDRESS.

    Raises:
        click.BadParameter: if one has another form.
    """
    found = []
    for value in values:
        weight, separator, text = value.partition(":")
        if not (separator and weight.isdecimal()):
            weight, text = "1", value
        if not int(weight):
            raise click.BadParameter(f"expected a weight of at least 1, found {value}")
        address = parse_builder(context, option, text)
        assert address is not None
        found.append((float(weight), address))
    return found


def server_certificate(
    listen: Sequence[Address], certificate: Path | None, key: Path | None, client_ca: Path | None
) -> Certificate | None:
    """Return the certificate of a server; None if it listens on no grpc+https address.

    Raises:
        click.UsageError: if options are missing, or given without a grpc+https address.
    """
    if not any(address.tls for address in listen):
        if certificate or key or client_ca:
            raise click.UsageError("expected --listen grpc+https://… with --tls options")
        return None
    if certificate is None or key is None:
        raise click.UsageError("expected --tls-certificate and --tls-key with grpc+https")
    from tvix_build.proxy.certificate import Certificate

    return Certificate(
        certificate.read_bytes(), key.read_bytes(), client_ca.read_bytes() if client_ca else None
    )


def client_credentials(
    address: Address | ReapiAddress | None,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    prefix: str = "",
) -> grpc.ChannelCredentials | None:
    """Return the credentials of a client; None if the address is not grpc+https. `prefix` is the
    prefix of the option names.

    Raises:
        click.UsageError: if options are missing, or given without a grpc+https address.
    """
    if address is None or not address.tls:
        if ca or certificate or key:
            raise click.UsageError(
                f"expected grpc+https://… with --{prefix}ca, --{prefix}certificate and "
                f"--{prefix}key"
            )
        return None
    if (certificate is None) != (key is None):
        raise click.UsageError(f"expected both of --{prefix}certificate and --{prefix}key")
    import grpc

    return grpc.ssl_channel_credentials(
        *(file.read_bytes() if file else None for file in (ca, key, certificate))
    )
