# SPDX-License-Identifier: MIT
"""The command line. `main` runs a command in this process.

    >>> from tvix_build import cli
    >>> cli.main(["--version"])  # doctest: +ELLIPSIS
    tvix-build ...
    0

The commands need click and rich (`pip install 'tvix-build[cli]'`), and are imported when `main`
runs. Settings of the whole process, such as signal handlers, are in `tvix_build.__main__`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from tvix_build._core.names import set_public_module
from tvix_build.cli.program import complain

__all__ = ["main"]

EXTRA = frozenset({"click", "rich"})


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status. The command uses `sys.stdin`, `sys.stdout` and
    `sys.stderr`, and changes nothing else in the process.

    Args:
        arguments: the arguments, without the name of the program.

    Returns:
        0 if everything is valid, 1 if something is invalid, 2 after wrong usage or if an input or
        output failed, 141 (128 + SIGPIPE) if the reader of standard output has closed it.
    """
    try:
        from tvix_build.cli import group

        status = group.run(list(arguments))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        complain(f"the command needs {missing}: pip install 'tvix-build[cli]'")
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except MemoryError:
        complain("out of memory")
    except OSError as error:
        complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
    return 2


set_public_module(globals())
