# SPDX-License-Identifier: MIT
"""A client of snix's schema, made with Go's gRPC from the .proto files alone, uploads inputs,
builds and fetches outputs through `serve --upstream sandbox: --castore`."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders_support import needs_sandbox
from consumer_clients import check_client
from go_programs import CONSUMERS, ROOT, compile_program, needs_go

pytestmark = [needs_sandbox, pytest.mark.slow, pytest.mark.exhaustive, needs_go(grpc=True)]


def test_inputs_a_build_and_outputs(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    protos = [*ROOT.glob("proto/snix/*/protos/*.proto")]
    directory = tmp_path_factory.mktemp("go")
    program = compile_program(directory, CONSUMERS / "build/build.go", protos, grpc=True)
    check_client(tmp_path, [program], "rpc error: code = Aborted desc = ")
