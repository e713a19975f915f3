# SPDX-License-Identifier: MIT
"""Identifies callers by bearer tokens (JWT). It needs PyJWT: `pip install 'tvix-build[jwt]'`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tvix_build.proxy.builder_protocol import Metadata
from tvix_build.proxy.remote_keys import Key, RemoteKeys, by_name
from tvix_build.proxy.status import StatusError, status_error

_ALGORITHMS: list[tuple[type, Sequence[str]]] = [
    (RSAPublicKey, ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
    (EllipticCurvePublicKey, ["ES256", "ES384", "ES512"]),
    (Ed25519PublicKey, ["EdDSA"]),
]
_REMEMBERED = 1000
"""The limit of valid tokens whose signatures are not verified again."""


class Tokens:
    """Verifies tokens with public keys. Tokens must have `sub` and `exp`.

    Args:
        keys: a file with a public key in PEM or with a JSON Web Key Set, or the URL of one.
        audience: the required `aud`; None if tokens must not have it.
        issuer: the required `iss`; None for any.

    Attributes:
        remote: the keys at the URL, which the caller has fetched; None for those of a file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it has no public key, or the URL has a wrong form.
    """

    def __init__(
        self, keys: Path | str, audience: str | None = None, issuer: str | None = None
    ) -> None:
        self.remote = RemoteKeys(keys) if isinstance(keys, str) else None
        self._keys = {} if isinstance(keys, str) else _read_keys(keys)
        self._audience = audience
        self._issuer = issuer
        self._valid: dict[str, tuple[str, float]] = {}

    def follow(self, other: Tokens | None) -> None:
        """Use the fetched keys of the tokens that these replace, and have them fetched again.

        Raises:
            ValueError: if keys are at another URL.
        """
        theirs = other.remote if other is not None else None
        if self.remote is None and theirs is None:
            return
        if self.remote is None or theirs is None or self.remote.url != theirs.url:
            raise ValueError("expected the same URL of keys; another one needs a restart")
        self.remote = theirs
        theirs.want(now=True)

    def name(self, metadata: Metadata) -> str:
        """Return the subject of the token in the metadata of a call.

        Raises:
            StatusError: if there is no valid token.
        """
        values = [value for name, value in metadata if name == "authorization"]
        scheme, _, token = str(values[0] if len(values) == 1 else "").partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthenticated("expected one authorization with a bearer token")
        if self.remote is not None and self._keys is not self.remote.keys:
            self._keys = self.remote.keys
            self._valid.clear()
        name, expiry = self._valid.get(token, ("", 0.0))
        if expiry > time.time():
            return name
        claims = self._verify(token)
        if len(self._valid) >= _REMEMBERED:
            self._valid.clear()
        self._valid[token] = claims["sub"], float(claims["exp"])
        return str(claims["sub"])

    def _verify(self, token: str) -> dict[str, Any]:
        try:
            name = jwt.get_unverified_header(token).get("kid")
            key, algorithms = self._keys.get(name) or self._keys[None]
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(algorithms),
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["exp", "sub"]},
            )
        except KeyError:
            if self.remote is not None:
                self.remote.want()
            raise _unauthenticated("expected a token with the kid of a known key") from None
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise _unauthenticated(f"invalid token: {error}") from None
        if not claims["sub"]:
            raise _unauthenticated("expected a token with a subject")
        return claims


def _read_keys(path: Path) -> dict[str | None, Key]:
    """Return the keys of a file by their `kid`."""
    data = path.read_bytes()
    if data.lstrip().startswith(b"{"):
        try:
            keys = jwt.PyJWKSet.from_json(data.decode()).keys
        except (jwt.PyJWTError, ValueError) as error:
            raise ValueError(f"{path}: expected a JSON Web Key Set: {error}") from None
        return by_name(keys)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path}: expected a public key in PEM or a JSON Web Key Set") from None
    for kind, algorithms in _ALGORITHMS:
        if isinstance(key, kind):
            return {None: (key, algorithms)}
    raise ValueError(f"{path}: expected an RSA, elliptic curve or Ed25519 key")


def _unauthenticated(message: str) -> StatusError:
    return status_error(grpc.StatusCode.UNAUTHENTICATED, "INVALID_TOKEN", message)
