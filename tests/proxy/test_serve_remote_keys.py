# SPDX-License-Identifier: MIT
"""Keys of tokens at a URL: a JSON Web Key Set that a local server has."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import tvix_build
from serving import Builder, Method, method_of, open_proxy, proxy_to
from tvix_build import cli
from tvix_build.proxy.listening import ServeError
from tvix_build.proxy.server import Options
from tvix_build.proxy.tokens import Tokens
from waiting import until

DATA = tvix_build.build_request(command_args=["a"], outputs=["b"]).SerializeToString()
KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("first", "second")}


class KeyServer:
    """A server of a JSON Web Key Set.

    Attributes:
        names: the keys in the set; none is an error of the server.
        requests: the number of requests.
        url: where the set is.
    """

    def __init__(self) -> None:
        self.names = ["first"]
        self.requests = 0
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[KeyServer]:
        """Serve in a thread."""
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.requests += 1
                self.send_response(200 if keys.names else 500)
                self.end_headers()
                self.wfile.write(keys.body())

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}/keys"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def body(self) -> bytes:
        """Return the set."""
        found = []
        for name in self.names:
            key = jwt.algorithms.ECAlgorithm.to_jwk(KEYS[name].public_key(), as_dict=True)
            found.append({**key, "kid": name, "alg": "ES256"})
        return json.dumps({"keys": found}).encode()


async def code_of(do_build: Method, name: str) -> grpc.StatusCode:
    """Return the status of a call with a token that a key signed."""
    claims = {"sub": "ci", "exp": time.time() + 3600}
    text = jwt.encode(claims, KEYS[name], "ES256", headers={"kid": name})
    return await do_build(DATA, metadata=(("authorization", f"Bearer {text}"),)).code()


OK, UNAUTHENTICATED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED


def test_keys_are_fetched_again_for_a_token_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_build.proxy.remote_keys._COOLDOWN_SECONDS", 0.0)

    async def scenario(server: KeyServer) -> None:
        tokens = Tokens(server.url)
        async with proxy_to(Builder(), tokens=tokens) as proxy, method_of(proxy) as do_build:
            assert server.requests == 1
            assert await code_of(do_build, "first") is OK
            server.names = ["second"]
            assert await code_of(do_build, "second") is UNAUTHENTICATED
            await until(lambda: server.requests == 2)
            assert tokens.remote
            remote = tokens.remote
            await until(lambda: [*remote.keys] == ["second"])
            assert await code_of(do_build, "second") is OK
            assert await code_of(do_build, "first") is UNAUTHENTICATED

    with KeyServer().running() as server:
        asyncio.run(scenario(server))


def test_old_keys_stay_in_use_if_none_can_be_fetched(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: KeyServer) -> None:
        async with (
            proxy_to(Builder(), tokens=Tokens(server.url)) as proxy,
            method_of(proxy) as do_build,
        ):
            server.names = []
            proxy.reload(Options([], [], tokens=Tokens(server.url)))
            await until(lambda: "keys not fetched" in caplog.text)
            assert await code_of(do_build, "first") is OK
            with pytest.raises(ValueError, match="needs a restart"):
                proxy.reload(Options([], [], tokens=Tokens("https://other.example/keys")))

    with caplog.at_level(logging.WARNING), KeyServer().running() as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000, b'{"keys": [1]}'])
def test_keys_that_cannot_be_fetched_at_the_start(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeyServer, "body", lambda _: body)

    async def scenario(server: KeyServer) -> None:
        with pytest.raises(ServeError, match="cannot fetch keys"):
            async with open_proxy(tokens=Tokens(server.url)):
                pass

    with KeyServer().running() as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("http://id.example/keys", "expected https, or http with a loopback address"),
        ("https:///keys", "expected https"),
        ("no/such/file", "does not exist"),
    ],
)
def test_usage(keys: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--check-only", "--jwt-keys", keys]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())


def test_checking_the_configuration_fetches_no_keys() -> None:
    with KeyServer().running() as server:
        options = ["serve", "--check-only", "--check-config", "--jwt-keys", server.url]
        assert cli.main(options) == 0
        assert server.requests == 0
