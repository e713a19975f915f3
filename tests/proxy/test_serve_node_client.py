# SPDX-License-Identifier: MIT
"""A client of snix's schema, made with Node's gRPC from the .proto files alone, uploads inputs,
builds and fetches outputs through `serve --upstream sandbox: --castore`.

The packages of the client: npm ci --prefix tests/consumers/node"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from shutil import which

import pytest
from google.protobuf import json_format

from builders_support import needs_sandbox, request
from proxy_process import running_proxy
from tvix_build.castore import CastoreStore, node_from_path
from tvix_build.proxy.shared.addresses import parse
from waiting import LIMIT

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "tests/consumers/node/build.js"
MODULES = Path(
    os.environ.get("TVIX_BUILD_NODE_MODULES", CLIENT.with_name("node_modules"))
).absolute()
SCRIPT = """
cd /nix/store
mkdir -p made/deep
sed s/hello/goodbye/ source/deep/greeting >made/deep/greeting
echo "/nix/store/source" >made/reference
ln -s deep/greeting made/link
cp source/run made/run
$PWD/source/run >ran
"""

pytestmark = [
    needs_sandbox,
    pytest.mark.slow,
    pytest.mark.skipif(which("node") is None, reason="needs node"),
    pytest.mark.skipif(
        not (MODULES / "@grpc").exists(),
        reason="needs npm packages: npm ci --prefix tests/consumers/node",
    ),
]


def make_source(directory: Path) -> Path:
    source = directory / "source"
    (source / "deep" / "empty").mkdir(parents=True)
    (source / "deep" / "greeting").write_text("hello\n")
    (source / "run").write_text("#!/bin/sh\necho $0\n")
    (source / "run").chmod(0o755)
    (source / "data").write_bytes(bytes(range(256)) * 8192)
    (source / "link").symlink_to("deep/greeting")
    return source


def build(
    address: str, source: Path, outputs: Path, script: str
) -> subprocess.CompletedProcess[str]:
    """Run the client."""
    needles = ["source", "absent", "greeting"]
    made = request(script, outputs=["made", "ran"], refscan_needles=needles)
    return subprocess.run(
        ["node", CLIENT, parse(address).target, ROOT / "proto", source, outputs],
        input=json_format.MessageToJson(made, preserving_proto_field_name=True),
        env={**os.environ, "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


def test_inputs_a_build_and_outputs(tmp_path: Path) -> None:
    source, outputs = make_source(tmp_path), tmp_path / "outputs"
    options = ("--upstream", "sandbox:", "--castore", tmp_path / "store")
    with running_proxy("--listen", "grpc+http://127.0.0.1:0", *options) as proxy:
        done = build(proxy.address, source, outputs, SCRIPT)
        assert (done.returncode, done.stderr) == (0, "")
        failed = build(proxy.address, source, tmp_path / "none", "exit 3")
    assert json.loads(done.stdout) == [[0, 2], [0]]
    assert (outputs / "made/link").read_text() == "goodbye\n"
    assert os.access(outputs / "made/run", os.X_OK)
    assert (outputs / "ran").read_text() == "/nix/store/source/run\n"
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: 10 ABORTED: exit status 3; the log is the blob ")
    with CastoreStore(tmp_path / "store") as store:
        for path in (source, outputs / "made", outputs / "ran"):
            assert store.closure(node_from_path(path)).blobs
        assert not list(store.verify())
