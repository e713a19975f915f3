# SPDX-License-Identifier: MIT
"""Has Nix (Debian's nix-bin) make the derivations of odd.nix anew, in this directory.

usage: instantiate.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FEATURES = "nix-command ca-derivations impure-derivations"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": directory,
            "NIX_CONF_DIR": directory,
            "NIX_USER_CONF_FILES": "",
            # As root Nix would give the store to a group that a sandbox may lack.
            "NIX_CONFIG": f"build-users-group =\nexperimental-features = {FEATURES}",
        }
        command = ["nix-instantiate", "--store", directory, str(HERE / "odd.nix")]
        subprocess.run(command, env=environment, check=True)
        for old in HERE.glob("*.drv"):
            old.unlink()
        for new in Path(directory, "nix/store").glob("*.drv"):
            shutil.copyfile(new, HERE / new.name)


if __name__ == "__main__":
    main()
