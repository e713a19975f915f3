# SPDX-License-Identifier: MIT
"""Entry point of the command `tvix-build`: signals, last-resort errors and exit statuses.

The commands are in `commands.py`, which is imported here and only when the program runs: it needs
click, rich and zstandard, an optional extra (`pip install 'tvix-build[cli]'`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

from tvix_build.records import temporary

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PROGRAM = "tvix-build"
EXTRA = frozenset({"click", "rich", "zstandard"})


# The signal that ends the program, once it has come.
_received: list[int] = []


class Interrupted(BaseException):
    """A signal ends the program; raised wherever it hits, and none catches it as an Exception."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: without the program's name; None for those of the process.

    Returns:
        0 all valid, 1 something invalid, 2 usage or an input or output that failed,
        128 + n when signal n ended it (130 SIGINT, 143 SIGTERM; 141 when nobody reads stdout).
    """
    status = 0
    try:
        _listen()
        status = _run_to_end(sys.argv[1:] if arguments is None else list(arguments))
        _stop_listening()
    except BaseException:
        # Python may have made another exception of the signal's, or cleaning up after it failed.
        if not _received:
            raise
    return _end_by(_received[0]) if _received else status


def _end_by(number: int) -> int:
    temporary.remove_all()
    _abandon_stdout()
    _complain("interrupted" if number == signal.SIGINT else "terminated")
    return 128 + number


def _run_to_end(arguments: list[str]) -> int:
    try:
        return _run(arguments)
    except BrokenPipeError:
        _abandon_stdout()
        return 128 + signal.SIGPIPE
    except MemoryError:
        _abandon_stdout()
        _complain("out of memory")
        return 2
    except OSError as error:
        _abandon_stdout()
        _complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
        return 2


def _run(arguments: list[str]) -> int:
    try:
        from tvix_build.cli import commands
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        _complain(f"the command needs {missing}: pip install 'tvix-build[cli]'")
        return 2
    for stream in (sys.stdout, sys.stderr):
        # A file name need not be text, nor a terminal able to show it.
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    status = commands.run(arguments)
    if sys.stdout is not None:
        sys.stdout.flush()
    return status


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
    threading.Timer(0.01, os.kill, (os.getpid(), number)).start()


def _abandon_stdout() -> None:
    """Send what is still buffered for stdout nowhere, or the interpreter fails on it at exit."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def _complain(reason: str) -> None:
    if sys.stderr is None:
        return
    with suppress(OSError):
        print(f"{PROGRAM}: {reason}", file=sys.stderr, flush=True)
