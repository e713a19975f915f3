# SPDX-License-Identifier: MIT
"""Builds the derivations of builds.nix with Nix (Debian's nix-bin) again. For each, it writes the
.drv file and a .json file with what record.py received to the directory builds.

Needs the right to make namespaces, as root has it.

usage: build.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE / "builds"
CONFIGURATION = """
build-users-group =
cores = 0
sandbox-fallback = false
sandbox-paths = /usr /bin /lib /lib64 /recorded={recorded}
substitute = false
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as recorded:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": directory,
            "NIX_CONF_DIR": directory,
            "NIX_USER_CONF_FILES": "",
            "NIX_CONFIG": CONFIGURATION.format(recorded=recorded),
        }
        # A store in another place is only used in a sandbox.
        command = ["nix-build", "--no-out-link", "--store", directory, str(HERE / "builds.nix")]
        subprocess.run(command, env=environment, check=True)
        shutil.rmtree(TARGET, ignore_errors=True)
        TARGET.mkdir()
        for derivation in Path(directory, "nix/store").glob("*.drv"):
            shutil.copyfile(derivation, TARGET / derivation.name)
        for text in Path(recorded).iterdir():
            shutil.copyfile(text, TARGET / f"{text.name[33:]}.json")


if __name__ == "__main__":
    main()
