# SPDX-License-Identifier: MIT
"""Clients in other languages that only have the .proto files of snix: they upload inputs, build and
fetch outputs through `serve --upstream sandbox: --castore`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf import json_format

from builders_support import request
from proxy_process import running_proxy
from serving import FREE_PORT
from tvix_build.castore import CastoreStore, node_from_path
from tvix_build.proxy.shared.addresses import parse
from waiting import LIMIT

SCRIPT = """
cd /nix/store
mkdir -p made/deep
sed s/hello/goodbye/ source/deep/greeting >made/deep/greeting
echo "/nix/store/source" >made/reference
ln -s deep/greeting made/link
cp source/run made/run
$PWD/source/run >ran
"""


def _make_source(directory: Path) -> Path:
    source = directory / "source"
    (source / "deep" / "empty").mkdir(parents=True)
    (source / "deep" / "greeting").write_text("hello\n")
    (source / "run").write_text("#!/bin/sh\necho $0\n")
    (source / "run").chmod(0o755)
    (source / "data").write_bytes(bytes(range(256)) * 8192)
    (source / "link").symlink_to("deep/greeting")
    return source


def _build(
    client: Sequence[str | Path], variables: Mapping[str, str], paths: Sequence[Path], script: str
) -> subprocess.CompletedProcess[str]:
    needles = ["source", "absent", "greeting"]
    made = request(script, outputs=["made", "ran"], refscan_needles=needles)
    return subprocess.run(
        [*client, *paths],
        input=json_format.MessageToJson(made, preserving_proto_field_name=True),
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


def check_client(
    directory: Path, program: Sequence[str | Path], failure: str, **variables: str
) -> None:
    """Run a client, whose arguments are the target, the input and the directory of the outputs.

    Args:
        directory: an empty directory.
        program: the command of the client.
        failure: the beginning of what it writes to stderr if a build fails with status 3.
        variables: its environment variables.
    """
    source, outputs = _make_source(directory), directory / "outputs"
    options = ("--upstream", "sandbox:", "--castore", directory / "store")
    with running_proxy("--listen", FREE_PORT, *options) as proxy:
        client = [*program, parse(proxy.address).target]
        done = _build(client, variables, (source, outputs), SCRIPT)
        assert (done.returncode, done.stderr) == (0, "")
        failed = _build(client, variables, (source, directory / "none"), "exit 3")
    assert json.loads(done.stdout) == [[0, 2], [0]]
    assert (outputs / "made/link").read_text() == "goodbye\n"
    assert os.access(outputs / "made/run", os.X_OK)
    assert (outputs / "ran").read_text() == "/nix/store/source/run\n"
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"{failure}exit status 3; the log is the blob ")
    with CastoreStore(directory / "store") as store:
        for path in (source, outputs / "made", outputs / "ran"):
            assert store.closure(node_from_path(path)).blobs
        assert not list(store.verify())
