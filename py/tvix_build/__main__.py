# SPDX-License-Identifier: MIT
"""The program `tvix-build`, also `python -m tvix_build`. This module has the settings of the whole
process: signals, the garbage collector, the allocator, environment variables and standard streams.

The command line is `tvix_build.cli`. Its import is slow, so signal handlers are installed first.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# Commands create many objects and few cycles, so Python's default of 700 only costs time.
GC_THRESHOLD = 200_000
_M_ARENA_MAX = -8
"""The parameter of glibc's `mallopt`."""

# The received signal that ends the program, if any.
_received: list[int] = []


class Interrupted(BaseException):
    """A signal ends the program. It is a BaseException, so that no `except Exception` catches
    it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, and return its exit status.

    Args:
        arguments: the arguments, without the name of the program; None for those of the process.

    Returns:
        The status of `tvix_build.cli.main`, or 128 + n if signal n ended the program (130 for
        SIGINT, 143 for SIGTERM).
    """
    status = 0
    try:
        _listen()
        status = _run(sys.argv[1:] if arguments is None else list(arguments))
        _stop_listening()
    except BaseException:
        # Python may have replaced the exception, or cleaning up may have failed.
        if not _received:
            raise
    return _end_by(_received[0]) if _received else status


def _run(arguments: list[str]) -> int:
    if "serve" in arguments:
        _use_one_arena()
    else:  # `serve` runs for long, and cycles may refer to large messages.
        gc.set_threshold(GC_THRESHOLD)
    # The C core of gRPC logs errors, which the statuses contain, too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        # A file name may not be text, or the terminal may not be able to show it.
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    from tvix_build import cli

    status = cli.main(arguments)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # `cli.main` has failed for the same reason.
        _abandon_stdout()
    return status


def _use_one_arena() -> None:
    """Have all threads allocate from one arena, so that each can use the memory that another has
    freed. By default, glibc makes up to eight arenas per CPU, and each keeps its own free memory.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Other C libraries have no arenas.
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, 1)


def _end_by(number: int) -> int:
    from tvix_build.cli.program import complain
    from tvix_build.records import temporary

    temporary.remove_all()
    _abandon_stdout()
    complain("interrupted" if number == signal.SIGINT else "terminated")
    return 128 + number


def _listen() -> None:
    _received.clear()
    sys.unraisablehook = _on_unraisable
    for number in (signal.SIGINT, signal.SIGTERM):
        # A signal that is already ignored (nohup, a background job) stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _stop_listening() -> None:
    """Ignore signals, so that they do not interrupt cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Raise Interrupted once."""
    _stop_listening()
    _received.append(number)
    raise Interrupted


def _on_unraisable(unraisable: UnraisableHookArgs) -> None:
    """Send the signal again later if Interrupted was raised in a callback or a finalizer, whose
    exceptions Python only prints.
    """
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
        return
    number = _received[0]
    signal.signal(number, _interrupt)
    # Late enough for this function to return first, even on a busy machine.
    threading.Timer(0.1, os.kill, (os.getpid(), number)).start()


def _abandon_stdout() -> None:
    """Discard the buffered output to stdout, which would make the interpreter fail at exit."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
