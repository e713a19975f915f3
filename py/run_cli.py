# SPDX-License-Identifier: MIT
"""Runs the command line from a source tree; with `bazel run`, relative paths are the caller's."""

import os

from tvix_build.cli import main

if __name__ == "__main__":
    os.chdir(os.environ.get("BUILD_WORKING_DIRECTORY", "."))
    main()
