# SPDX-License-Identifier: MIT
"""Fetches the keys of tokens from a URL, in a thread, and again from time to time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import jwt

from tvix_build.proxy.logs import LOG
from tvix_build.proxy.shared.addresses import is_loopback

Key: TypeAlias = "tuple[Any, Sequence[str]]"
"""A key, and the algorithms for which it is used."""
_FETCH_SECONDS = 10.0
"""How long the server may be silent."""
_INTERVAL_SECONDS = 300.0
_COOLDOWN_SECONDS = 30.0
"""The shortest time between two fetches for tokens with unknown keys."""


class RemoteKeys:
    """The keys in a JSON Web Key Set at a URL.

    Args:
        url: the URL, with https, or with http and a loopback address.

    Attributes:
        keys: the last keys that were fetched, by their `kid`.

    Raises:
        ValueError: if the URL has another form.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: dict[str | None, Key] = {}
        self._client = jwt.PyJWKClient(_check(url), cache_jwk_set=False, timeout=_FETCH_SECONDS)
        self._wanted = asyncio.Event()
        self._fetched = 0.0

    async def fetch(self) -> None:
        """Fetch the keys now.

        Raises:
            ValueError: if the server does not return a JSON Web Key Set. The old keys stay in use.
        """
        self._fetched = time.monotonic()
        try:
            self.keys = by_name(await asyncio.to_thread(self._client.get_signing_keys))
        except Exception as error:  # Whatever the server sends, `run` continues.
            raise ValueError(f"{self.url}: cannot fetch keys: {error}") from None

    async def run(self) -> None:
        """Fetch the keys again and again, until cancelled."""
        while True:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), _INTERVAL_SECONDS)
            self._wanted.clear()
            try:
                await self.fetch()
            except ValueError as error:
                LOG.warning("keys not fetched", extra={"fields": {"reason": str(error)}})

    def want(self, now: bool = False) -> None:
        """Have the keys fetched; without `now`, only if they have not just been."""
        if now or time.monotonic() - self._fetched >= _COOLDOWN_SECONDS:
            self._wanted.set()


def by_name(keys: Iterable[jwt.PyJWK]) -> dict[str | None, Key]:
    """Return keys by their `kid`."""
    return {key.key_id: (key.key, [key.algorithm_name]) for key in keys}


def _check(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        return url
    raise ValueError(f"expected https, or http with a loopback address, found {url!r}")
