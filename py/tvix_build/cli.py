# SPDX-License-Identifier: MIT
"""Entry point of the command `tvix-build`: signals, last-resort errors and exit statuses.

The commands are in `_command_line`, which is imported here and only when the program runs: it needs
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

from tvix_build._command_line import temporary

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PROGRAM = "tvix-build"
EXTRA = frozenset({"click", "rich", "zstandard"})


# Interruptions that went no further and have not come again yet.
_lost: list[Interrupted] = []


class Interrupted(BaseException):
    """A signal that ends the program, raised wherever it hits; none catches it as an Exception."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: without the program's name; None for those of the process.

    Returns:
        0 all valid, 1 something invalid, 2 usage or an input or output that failed,
        128 + n when signal n ended it (130 SIGINT, 143 SIGTERM; 141 when nobody reads stdout).
    """
    try:
        _listen()
        status = _run_to_end(sys.argv[1:] if arguments is None else list(arguments))
        _stop_listening()
        if _lost:
            raise _lost.pop()
        return status
    except BaseException as error:
        number = _signal_of(error)
        if number is None:
            raise
        temporary.remove_all()
        _abandon_stdout()
        _complain("interrupted" if number == signal.SIGINT else "terminated")
        return 128 + number


def _signal_of(error: BaseException | None) -> int | None:
    """The signal behind an exception: an interruption, or what came from one. Python before 3.12
    makes a RuntimeError of what is raised while a class is made.
    """
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error.number if error is not None else None


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
        from tvix_build._command_line import commands
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
    _lost.clear()
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
    raise Interrupted(number)


def _on_unraisable(unraisable: UnraisableHookArgs) -> None:
    """Interrupt again, a little later, where an exception goes no further: Python prints those of
    callbacks and finalizers, which may run anywhere.
    """
    lost = unraisable.exc_value
    if not isinstance(lost, Interrupted):
        sys.__unraisablehook__(unraisable)
        return
    _lost.append(lost)
    signal.signal(lost.number, _interrupt)
    threading.Timer(0.01, os.kill, (os.getpid(), lost.number)).start()


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


if __name__ == "__main__":
    sys.exit(main())
