# SPDX-License-Identifier: MIT
"""The program `tvix-build`, also `python -m tvix_build`: what concerns the whole process, that is
signals, the garbage collector, environment variables and the standard streams.

The command line is `tvix_build.cli`. It is imported after the handlers of signals are in place, as
that takes a while.
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

# Commands make many objects and hardly any cycles, so that Python's default of 700 costs time only.
GC_THRESHOLD = 200_000

# The signal that ends the program, once it has come.
_received: list[int] = []


class Interrupted(BaseException):
    """A signal ends the program; raised wherever it hits, and none catches it as an Exception."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: without the program's name; None for those of the process.

    Returns:
        The status of `tvix_build.cli.main`, or 128 + n when signal n ended the program (130
        SIGINT, 143 SIGTERM).
    """
    status = 0
    try:
        _listen()
        status = _run(sys.argv[1:] if arguments is None else list(arguments))
        _stop_listening()
    except BaseException:
        # Python may have made another exception of the signal's, or cleaning up after it failed.
        if not _received:
            raise
    return _end_by(_received[0]) if _received else status


def _run(arguments: list[str]) -> int:
    gc.set_threshold(GC_THRESHOLD)
    # The C core of gRPC would log lines of its own. The statuses have the same information.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        # A file name need not be text, nor a terminal able to show it.
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


def _end_by(number: int) -> int:
    from tvix_build import cli
    from tvix_build.records import temporary

    temporary.remove_all()
    _abandon_stdout()
    cli.complain("interrupted" if number == signal.SIGINT else "terminated")
    return 128 + number


def _listen() -> None:
    _received.clear()
    sys.unraisablehook = _on_unraisable
    for number in (signal.SIGINT, signal.SIGTERM):
        # One that is ignored from the start (nohup, a background job) stays so.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _stop_listening() -> None:
    """Ignore signals, as there is nothing left to interrupt but the cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Raise Interrupted once."""
    _stop_listening()
    _received.append(number)
    raise Interrupted


def _on_unraisable(unraisable: UnraisableHookArgs) -> None:
    """Interrupt again, a little later, where an exception goes no further: Python prints those of
    callbacks and finalizers, which may run anywhere.
    """
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
        return
    number = _received[0]
    signal.signal(number, _interrupt)
    # Not before this function has returned, on a busy machine, too.
    threading.Timer(0.1, os.kill, (os.getpid(), number)).start()


def _abandon_stdout() -> None:
    """Send what is still buffered for stdout nowhere, or the interpreter fails on it at exit."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
