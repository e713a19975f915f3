# SPDX-License-Identifier: MIT
"""Who calls the proxy: shared builds, metadata, certificates, tokens and rates."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from prometheus_client import generate_latest

import tvix_build
from attacks import connect
from frames import END_HEADERS, HEADERS, data_frames, frame, headers, message
from serving import (
    METHOD,
    Builder,
    details_of,
    error_of,
    method_of,
    open_proxy,
    proxy_to,
    response_to,
)
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build import Schema
from tvix_build.castore import CastoreStore
from tvix_build.proxy.builder_protocol import Caller
from tvix_build.proxy.callers import Certificates
from tvix_build.proxy.certificate import Certificate
from tvix_build.proxy.metadata import returned
from tvix_build.proxy.metrics import Metrics
from tvix_build.proxy.outcomes import Outcome
from tvix_build.proxy.rates import Rates
from tvix_build.proxy.server import Options, Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES
from tvix_build.proxy.status import StatusError
from tvix_build.proxy.tokens import Tokens
from waiting import until

REQUEST = tvix_build.build_request(command_args=["a"], outputs=["b"])
DATA = REQUEST.SerializeToString()


class Held:
    """A builder whose builds wait for a gate, and return metadata of the caller."""

    def __init__(self, fails: bool = False) -> None:
        self.gate = asyncio.Event()
        self.builder = Builder(self._respond)
        self._fails = fails

    async def _respond(self, request: BuildRequest, context: Any) -> Build:
        await self.gate.wait()
        await context.send_initial_metadata((("set-cookie", "mine"), ("region", "x")))
        trailing = (("session", "mine"), ("cost", "1"))
        if self._fails:
            await context.abort(grpc.StatusCode.ABORTED, "failed", trailing)
        context.set_trailing_metadata(trailing)
        return response_to(request)


@pytest.mark.parametrize("name", ["authorization", "authorization-bin", "tenant"])
def test_different_callers_do_not_share_a_build(name: str) -> None:
    values: list[str | bytes] = [b"a", b"b", b"a"] if name.endswith("-bin") else ["a", "b", "a"]

    async def scenario() -> None:
        held = Held()
        async with (
            proxy_to(held.builder, deduplicate=True, deduplicate_by=["tenant"]) as proxy,
            method_of(proxy) as do_build,
        ):
            calls = [do_build(DATA, metadata=((name, one), ("other", "x"))) for one in values]
            await until(lambda: proxy.numbers["open_calls"]() == 3)
            await until(lambda: len(held.builder.requests) == 2)
            held.gate.set()
            await asyncio.gather(*calls)
            assert proxy.numbers["deduplicated_calls_total"]() == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", [False, True])
def test_response_metadata_is_for_the_caller_of_the_build(fails: bool) -> None:
    async def scenario() -> None:
        held = Held(fails)
        async with (
            proxy_to(held.builder, deduplicate=True, shared_metadata=["cost", "region"]) as proxy,
            method_of(proxy) as do_build,
        ):
            first = do_build(DATA)
            await until(lambda: len(held.builder.requests) == 1)
            second = do_build(DATA)
            await until(lambda: proxy.numbers["open_calls"]() == 2)
            held.gate.set()
            for call, private in ((first, True), (second, False)):
                assert (await call.code() is grpc.StatusCode.OK) != fails
                found = dict([*await call.initial_metadata(), *await call.trailing_metadata()])
                assert found["cost"] == "1"
                assert ("session" in found) == private
                if not fails:
                    assert found["region"] == "x"
                    assert ("set-cookie" in found) == private

    asyncio.run(scenario())


async def raw_call(proxy: Server, more: list[tuple[bytes, bytes]]) -> asyncio.StreamWriter:
    """Send a call with headers that no library sends."""
    port = parse(proxy.addresses[0]).port
    assert port
    _, writer = await connect(port)
    writer.write(frame(HEADERS, END_HEADERS, 1, headers(METHOD, more)))
    writer.write(data_frames(1, message(DATA)))
    return writer


@pytest.mark.parametrize("value", ["caf\xe9".encode(), b"\xff", b"a\x7f", b"a\x01"])
def test_metadata_that_cannot_be_forwarded(value: bytes) -> None:
    """It is an error of its sender alone, also if the call could share a build."""

    async def scenario() -> None:
        outcomes: list[Outcome] = []
        async with proxy_to(Builder(), deduplicate=True) as proxy, method_of(proxy) as do_build:
            proxy.observers.append(outcomes.append)
            writer = await raw_call(proxy, [(b"key", value)])
            await do_build(DATA)
            await until(lambda: len(outcomes) == 2)
            writer.close()
        codes = {one.code for one in outcomes}
        assert codes == {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OK}

    asyncio.run(scenario())


def test_headers_of_connections_and_proxies_are_dropped() -> None:
    async def scenario() -> None:
        builder = Builder()
        async with proxy_to(builder) as proxy:
            names = ["x-forwarded-for", "x-real-ip", "forwarded", "via", "proxy-authorization"]
            writer = await raw_call(proxy, [(one.encode(), b"x") for one in [*names, "kept"]])
            await until(lambda: len(builder.metadata) == 1)
            writer.close()
        assert builder.metadata[0]["kept"] == "x"
        assert not set(names) & set(builder.metadata[0])

    asyncio.run(scenario())


def test_returned_metadata() -> None:
    details = ("grpc-status-details-bin", b"\0")
    metadata = (("a", "x"), ("b", "\xe9"), ("c-bin", b"\xe9"), ("connection", "close"), details)
    more = (("tvix-build-digest", "0"), ("grpc-message", "x"))
    assert returned((*metadata, *more)) == (("a", "x"), ("c-bin", b"\xe9"), details)


def test_a_list_of_forwarded_metadata() -> None:
    async def scenario() -> None:
        builder = Builder()
        async with (
            proxy_to(builder, forwarded_metadata=["tenant"]) as proxy,
            method_of(proxy) as do_build,
        ):
            await do_build(DATA, metadata=(("tenant", "x"), ("authorization", "y")))
        assert builder.metadata[0]["tenant"] == "x"
        assert "authorization" not in builder.metadata[0]
        assert "tvix-build-digest" in builder.metadata[0]

    asyncio.run(scenario())


def test_the_digest_of_the_caller_is_compared_without_case() -> None:
    digest = tvix_build.digest(REQUEST).hex().upper()

    async def scenario() -> None:
        async with proxy_to(Builder()) as proxy, method_of(proxy) as do_build:
            await do_build(DATA, metadata=(("tvix-build-digest", digest),))

    asyncio.run(scenario())


class Authority:
    """A certificate authority for the proxy and its callers."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self._server = self._ca.issue_cert("localhost")

    def server(self) -> Certificate:
        """Return the certificate of the proxy."""
        return Certificate(
            self._server.cert_chain_pems[0].bytes(),
            self._server.private_key_pem.bytes(),
            self._ca.cert_pem.bytes(),
        )

    @asynccontextmanager
    async def do_build(self, proxy: Server, *names: str, address: int = 0) -> AsyncIterator[Any]:
        """Yield DoBuild for a client with names, at one of the proxy's addresses."""
        issued = self._ca.issue_cert(*names)
        credentials = grpc.ssl_channel_credentials(
            self._ca.cert_pem.bytes(),
            issued.private_key_pem.bytes(),
            issued.cert_chain_pems[0].bytes(),
        )
        port = parse(proxy.addresses[address]).port
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options) as channel:
            yield channel.unary_unary(METHOD)


def test_names_of_client_certificates() -> None:
    async def scenario() -> None:
        authority, outcomes = Authority(), list[Outcome]()
        async with (
            proxy_to(
                Builder(),
                listen=[parse("grpc+https://localhost:0")],
                certificate=authority.server(),
                certificates=Certificates(["*.good.example"]),
            ) as proxy,
            authority.do_build(proxy, "other.example", "a.good.example") as good,
            authority.do_build(proxy, "a.b.good.example") as bad,
        ):
            proxy.observers.append(outcomes.append)
            await good(DATA)
            error = await error_of(bad(DATA))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert details_of(error) == ("NAME_NOT_ALLOWED", [])
        assert [one.caller for one in outcomes] == ["a.good.example", ""]

    asyncio.run(scenario())


def test_calls_with_different_certificates_do_not_share_a_build() -> None:
    async def scenario() -> None:
        authority, held = Authority(), Held()
        async with (
            proxy_to(
                held.builder,
                listen=[parse("grpc+https://localhost:0")],
                certificate=authority.server(),
                certificates=Certificates(),
                deduplicate=True,
            ) as proxy,
            authority.do_build(proxy, "a.example") as first,
            authority.do_build(proxy, "a.example") as second,
        ):
            calls = [asyncio.ensure_future(one(DATA)) for one in (first, second, first)]
            await until(lambda: proxy.numbers["open_calls"]() == 3)
            await until(lambda: len(held.builder.requests) == 2)
            held.gate.set()
            await asyncio.gather(*calls)

    asyncio.run(scenario())


def test_another_certificate_and_names_while_serving() -> None:
    async def scenario() -> None:
        first, second, held = Authority(), Authority(), Held()
        options: dict[str, Any] = {"listen": [parse("grpc+https://localhost:0")]}
        names = Certificates(["a.example"])
        async with proxy_to(
            held.builder, certificate=first.server(), certificates=names, **options
        ) as proxy:
            async with first.do_build(proxy, "a.example") as old:
                running = asyncio.ensure_future(old(DATA))
                await until(lambda: len(held.builder.requests) == 1)
                proxy.reload(
                    Options(
                        services=[],
                        certificate=second.server(),
                        certificates=Certificates(["b.example"]),
                        max_builds=3,
                        **options,
                    )
                )
                held.gate.set()
                await running
                error = await error_of(old(DATA))
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            async with second.do_build(proxy, "b.example") as new:
                await new(DATA)

    asyncio.run(scenario())


def test_each_address_has_the_certificate() -> None:
    async def scenario() -> None:
        first, second = Authority(), Authority()
        listen = [parse("grpc+https://localhost:0")] * 3
        async with proxy_to(Builder(), listen=listen, certificate=first.server()) as proxy:
            for address in range(3):
                async with first.do_build(proxy, "a.example", address=address) as old:
                    await old(DATA)
            proxy.reload(Options(services=[], listen=listen, certificate=second.server()))
            for address in range(3):
                async with second.do_build(proxy, "a.example", address=address) as new:
                    await new(DATA)

    asyncio.run(scenario())


def test_names_without_patterns() -> None:
    certificate = {"x509_common_name": [b"common"], "x509_subject_alternative_name": [b"first"]}
    assert Certificates().name(certificate) == "first"
    assert Certificates().name({"x509_common_name": [b"common"]}) == "common"


KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public(algorithm: str) -> bytes:
    """Return a public key in PEM."""
    found: bytes = (
        KEYS[algorithm]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return found


def token(algorithm: str, **claims: Any) -> str:
    """Return a token that is valid for an hour."""
    return jwt.encode(
        {"sub": "ci", "exp": time.time() + 3600, **claims},
        KEYS[algorithm],
        algorithm,
        headers={"kid": "one"},
    )


def name_of(tokens: Tokens, text: str) -> str:
    """Return the name in a token."""
    return tokens.name((("authorization", f"Bearer {text}"),))


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_tokens(algorithm: str, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(public(algorithm))
    tokens = Tokens(tmp_path / "key.pem")
    for _ in range(2):  # The second time, it is remembered.
        assert name_of(tokens, token(algorithm)) == "ci"
    other = next(one for one in KEYS if one != algorithm)
    unsigned = jwt.encode({"sub": "ci", "exp": time.time() + 3600}, "", "none")
    for bad in [
        token(other),
        token(algorithm, exp=1),
        token(algorithm, aud="other"),
        token(algorithm, sub=""),
        token(algorithm)[:-8] + "AAAAAAAA",
        unsigned,
        "",
        "a.b.c",
    ]:
        with pytest.raises(StatusError) as failure:
            name_of(tokens, bad)
        assert failure.value.code is grpc.StatusCode.UNAUTHENTICATED
    for metadata in ((), (("authorization", "Basic x"),), (("authorization", "Bearer x"),) * 2):
        with pytest.raises(StatusError, match="one authorization"):
            tokens.name(metadata)


def test_a_public_key_is_no_shared_secret(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(public("RS256"))
    tokens = Tokens(tmp_path / "key.pem")
    head = jwt.encode({"sub": "ci", "exp": time.time() + 3600}, "a" * 32, "HS256")
    with pytest.raises(StatusError, match="invalid token"):
        name_of(tokens, head)


def test_tokens_of_an_issuer(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(public("ES256"))
    tokens = Tokens(tmp_path / "key.pem", "builds", "https://id.example")
    assert name_of(tokens, token("ES256", aud="builds", iss="https://id.example")) == "ci"
    for claims in ({}, {"aud": "builds"}, {"aud": "builds", "iss": "https://other.example"}):
        with pytest.raises(StatusError, match="invalid token"):
            name_of(tokens, token("ES256", **claims))


def test_a_set_of_keys(tmp_path: Path) -> None:
    key: Any = jwt.algorithms.ECAlgorithm.to_jwk(KEYS["ES256"].public_key(), as_dict=True)
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [{**key, "kid": "one"}]}))
    tokens = Tokens(tmp_path / "keys.json")
    assert name_of(tokens, token("ES256")) == "ci"
    claims = {"sub": "ci", "exp": time.time() + 3600}
    with pytest.raises(StatusError, match="kid"):
        name_of(tokens, jwt.encode(claims, KEYS["ES256"], "ES256", headers={"kid": "two"}))


@pytest.mark.parametrize("text", ["", "{", '{"keys": []}', "-----BEGIN PUBLIC KEY-----"])
def test_files_without_keys(text: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ValueError, match="expected a"):
        Tokens(tmp_path / "keys")


def test_calls_need_a_token(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(public("ES256"))

    async def scenario() -> None:
        outcomes: list[Outcome] = []
        tokens = Tokens(tmp_path / "key.pem")
        async with proxy_to(Builder(), tokens=tokens) as proxy, method_of(proxy) as do_build:
            proxy.observers.append(outcomes.append)
            error = await error_of(do_build(DATA))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert details_of(error) == ("INVALID_TOKEN", [])
            await do_build(DATA, metadata=(("authorization", f"Bearer {token('ES256')}"),))
        assert [one.caller for one in outcomes] == ["", "ci"]

    asyncio.run(scenario())


def test_calls_of_the_castore_services_need_a_token(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(public("ES256"))

    async def scenario() -> None:
        tokens = Tokens(tmp_path / "key.pem")
        with CastoreStore(tmp_path / "store") as castore:
            options: dict[str, Any] = {"castore": castore, "max_rate": 1e-6, "max_burst": 1}
            async with (
                open_proxy(tokens=tokens, **options) as proxy,
                method_of(proxy, "/tvix.castore.v1.BlobService/Stat") as stat,
            ):
                error = await error_of(stat(b""))
                assert details_of(error) == ("INVALID_TOKEN", [])
                for _ in range(2):  # The rate is that of builds.
                    call = stat(b"", metadata=(("authorization", f"Bearer {token('ES256')}"),))
                    assert details_of(await error_of(call)) == ("INVALID_DIGEST", [])

    asyncio.run(scenario())


def test_rates() -> None:
    now = 0.0
    rates = Rates(2, 3, lambda: now)
    caller, other = Caller("ipv4:10.0.0.1:1000"), Caller("ipv4:10.0.0.2:1000")
    for _ in range(3):
        rates.count(caller)
    for same in (caller, Caller("ipv4:10.0.0.1:1001")):
        with pytest.raises(StatusError) as failure:
            rates.count(same)
        assert failure.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    rates.count(other)
    now = 0.5
    rates.count(caller)
    with pytest.raises(StatusError):
        rates.count(caller)
    for number in range(20_000):
        now += 1
        rates.count(Caller("ipv4:10.0.0.1:1000", str(number)))


def test_a_limited_rate() -> None:
    async def scenario() -> None:
        async with (
            open_proxy(max_rate=1e-6, max_burst=1) as proxy,
            method_of(proxy) as do_build,
        ):
            assert (await error_of(do_build(DATA))).code() is grpc.StatusCode.UNIMPLEMENTED
            error = await error_of(do_build(DATA))
            assert details_of(error) == ("RATE_LIMITED", [])

    asyncio.run(scenario())


def test_names_of_callers_in_metrics_are_limited() -> None:
    metrics = Metrics({})
    service = SERVICES[Schema.TVIX_BUILD_V1]
    for number in range(2000):
        metrics.observe(Outcome(service, "peer", f"caller {number}"))
    metrics.observe(Outcome(service, "peer", "caller 0"))
    lines = generate_latest(metrics.registry).decode().splitlines()
    found = [one for one in lines if one.startswith("tvix_build_caller_calls_total")]
    assert len(found) == 1000
    assert found[0] == 'tvix_build_caller_calls_total{caller="caller 0",code="OK"} 2.0'
