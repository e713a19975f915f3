# SPDX-License-Identifier: MIT
"""What systemd and the process tell each other in environment variables."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send a state such as READY=1 to systemd, if it has started the process with Type=notify."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection, suppress(OSError):
        connection.connect("\0" + path[1:] if path.startswith("@") else path)
        connection.send(state.encode())


def has_sockets() -> bool:
    """Return whether systemd passes sockets to the process (socket activation)."""
    return os.environ.get("LISTEN_PID") == str(os.getpid())
