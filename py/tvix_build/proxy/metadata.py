# SPDX-License-Identifier: MIT
"""The metadata of a caller that the builder receives."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

import grpc

from tvix_build.proxy.builder_protocol import Metadata
from tvix_build.proxy.shared.checks import DIGEST_KEY
from tvix_build.proxy.status import DETAILS_KEY, status_error

_DROPPED = re.compile(
    # What gRPC sets.
    r"user-agent|grpc-.*"
    # What belongs to one connection (RFC 9110, section 7.6.1).
    r"|connection|host|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade"
    # What proxies add, which the builder would trust.
    r"|forwarded|via|x-forwarded-.*|x-real-ip"
)
_NAME = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")


def forwarded(metadata: Metadata, digest: str, allowed: Collection[str] | None = None) -> Metadata:
    """Return the metadata for the builder: the caller's, without what belongs to the connection,
    and with the digest.

    Args:
        metadata: that of the caller.
        digest: the digest of the request, in hexadecimal.
        allowed: the names to forward; None for all.

    Raises:
        StatusError: if the digest in the caller's metadata is another one, or metadata cannot be
            forwarded.
    """
    found: list[tuple[str, str | bytes]] = []
    for name, value in metadata:
        if name == DIGEST_KEY:
            _check_digest(value, digest)
        elif _is_dropped(name) or (allowed is not None and name not in allowed):
            continue
        elif not _is_valid(name, value):
            raise status_error(
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_METADATA",
                f"expected metadata of printable ASCII characters, found {value!r:.100} in "
                f"{name!r:.100}",
            )
        else:
            found.append((name, value))
    found.append((DIGEST_KEY, digest))
    return tuple(found)


def returned(metadata: Metadata) -> Metadata:
    """Return the metadata for the caller: the builder's, without what belongs to the connection,
    the digest, and what is malformed."""
    if not metadata:
        return ()
    return tuple(
        (name, value)
        for name, value in metadata
        if (name == DETAILS_KEY or not _is_dropped(name))
        and name != DIGEST_KEY
        and _is_valid(name, value)
    )


@lru_cache(1024)  # Calls have the same names.
def _is_dropped(name: str) -> bool:
    return _DROPPED.fullmatch(name) is not None


@lru_cache(1024)
def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _is_valid(name: str, value: str | bytes) -> bool:
    if not _is_name(name):
        return False
    return isinstance(value, bytes) or _TEXT.fullmatch(value) is not None


def _check_digest(value: str | bytes, digest: str) -> None:
    if not isinstance(value, str) or value.lower() != digest:
        raise status_error(
            grpc.StatusCode.INVALID_ARGUMENT,
            "DIGEST_MISMATCH",
            f"expected the digest of the request, {digest}, in {DIGEST_KEY}, found {value!r:.100}",
        )
