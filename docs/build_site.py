# SPDX-License-Identifier: MIT
"""Builds the site: python build_site.py OUTPUT mkdocs.yml hooks.py PLACE=FILE...

Each FILE goes to its PLACE in a copy of the tree; links between pages are the same there.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort


def main() -> int:
    """Builds the site; 1 if MkDocs warns of anything."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    output, configuration, hooks = (Path(argument).absolute() for argument in sys.argv[1:4])
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        shutil.copy(hooks, work / "hooks.py")
        for placed in sys.argv[4:]:
            place, _, file = placed.partition("=")
            target = work / "tree" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        shutil.copy(configuration, work / "mkdocs.yml")
        os.chdir(work)  # Snippets are looked for from here.
        try:
            build(load_config(str(work / "mkdocs.yml"), site_dir=str(output)))
        except Abort as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
