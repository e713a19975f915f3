# SPDX-License-Identifier: MIT
"""One call for each message of a corpus, from Python.

usage: python -m bench.peers.python.single CORPUS CALL
CALL is a key of CALLS. At most 2,000 messages are used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

import tvix_build
from bench.peers.python.serve import Corpus, Findings, serve, timed
from tvix.build.protos.build_pb2 import BuildRequest

LIMIT = 2000

Result = bytes | None
"""The digest of a message."""


@dataclass(frozen=True)
class Call:
    """What is called for each message.

    Attributes:
        prepare: returns the argument for a message.
        call: returns the digest.
    """

    prepare: Callable[[bytes], Any]
    call: Callable[[Any], Result]


def _fields(message: bytes) -> dict[str, Any]:
    """The arguments of `build_request` for a request, in another order."""
    request = BuildRequest.FromString(message)
    return {
        "command_args": list(request.command_args),
        "outputs": list(request.outputs)[::-1],
        "environment_vars": {one.key: one.value for one in reversed(request.environment_vars)},
        "inputs": list(request.inputs)[::-1],
        "system": request.constraints.system,
    }


def _built(arguments: dict[str, Any]) -> bytes:
    return blake3(tvix_build.build_request(**arguments).SerializeToString()).digest()


def _serialized(message: BuildRequest) -> bytes:
    return blake3(message.SerializeToString()).digest()


def _constructed(arguments: dict[str, Any]) -> bytes:
    """The digest of the request that protobuf constructs, with lists in the opposite order."""
    variables = reversed(arguments["environment_vars"].items())
    request = BuildRequest(
        command_args=arguments["command_args"],
        outputs=arguments["outputs"][::-1],
        environment_vars=[BuildRequest.EnvVar(key=key, value=value) for key, value in variables],
        inputs=arguments["inputs"][::-1],
        constraints=BuildRequest.BuildConstraints(system=arguments["system"]),
    )
    return blake3(request.SerializeToString()).digest()


CALLS = {
    # PyPI's blake3 and protobuf, which check nothing.
    "blake3": Call(bytes, lambda data: blake3(data).digest()),
    "parse": Call(bytes, lambda data: _serialized(BuildRequest.FromString(data))),
    "serialize": Call(BuildRequest.FromString, _serialized),
    "construct": Call(_fields, _constructed),
    # tvix_build
    "check": Call(bytes, lambda data: tvix_build.check(data).digest),
    "digest": Call(bytes, tvix_build.digest),
    "check-message": Call(
        BuildRequest.FromString, lambda message: tvix_build.check(message).digest
    ),
    "build-request": Call(_fields, _built),
    "malformed": Call(lambda data: data[:-1], lambda data: tvix_build.check(data).digest),
}


def _repeat(call: Callable[[Any], Result], arguments: Iterable[Any]) -> Findings:
    digests = [call(argument) for argument in arguments]
    valid = sum(digest is not None for digest in digests)
    return Findings(valid, b"".join(digest or bytes(32) for digest in digests))


def main() -> None:
    """Serve the corpus and the call that the command line names."""
    corpus = Corpus.read(Path(sys.argv[1]))
    corpus = Corpus(corpus.data, corpus.begins[:LIMIT], corpus.ends[:LIMIT])
    chosen = CALLS[sys.argv[2]]
    arguments = [chosen.prepare(message) for message in corpus.messages()]
    serve(corpus, timed(lambda: _repeat(chosen.call, arguments)))


if __name__ == "__main__":
    main()
