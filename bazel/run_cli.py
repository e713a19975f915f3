# SPDX-License-Identifier: MIT
"""Run the command line; with `bazel run`, relative paths are relative to the caller's directory.

Not in py/: Python puts the true directory of the program first on its path, and the source tree
there has no extension and no generated modules.
"""

import os
import sys

from tvix_build.__main__ import main

if __name__ == "__main__":
    os.chdir(os.environ.get("BUILD_WORKING_DIRECTORY", "."))
    sys.exit(main())
