# SPDX-License-Identifier: MIT
"""Lets `python -m tvix_build` stand for `tvix-build`."""

import sys

from tvix_build.cli import main

if __name__ == "__main__":
    sys.exit(main())
