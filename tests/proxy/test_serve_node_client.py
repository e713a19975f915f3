# SPDX-License-Identifier: MIT
"""A client of snix's schema, made with Node's gRPC from the .proto files alone, uploads inputs,
builds and fetches outputs through `serve --upstream sandbox: --castore`.

The packages of the client: npm ci --prefix tests/consumers/node"""

from __future__ import annotations

import os
from pathlib import Path
from shutil import which

import pytest

from builders_support import needs_sandbox
from consumer_clients import check_client

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "tests/consumers/node/build.js"
MODULES = Path(
    os.environ.get("TVIX_BUILD_NODE_MODULES", CLIENT.with_name("node_modules"))
).absolute()
pytestmark = [
    needs_sandbox,
    pytest.mark.slow,
    pytest.mark.skipif(which("node") is None, reason="needs node"),
    pytest.mark.skipif(
        not (MODULES / "@grpc").exists(),
        reason="needs npm packages: npm ci --prefix tests/consumers/node",
    ),
]


def test_inputs_a_build_and_outputs(tmp_path: Path) -> None:
    check_client(
        tmp_path,
        ["node", CLIENT, ROOT / "proto"],
        "Error: 10 ABORTED: ",
        NODE_PATH=str(MODULES),
    )
