"""Tells the service manager how the agent is: ready, alive, reloading, stopping (the sd_notify protocol).

One datagram per message to the socket in $NOTIFY_SOCKET; without one, nothing happens. The daemon decides when; a
manager that does not listen is no reason to fail.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from hostagent.clock import Clock


class Notifier:
    """A voice towards the service manager that started this process."""

    def __init__(self, clock: Clock, environment: Mapping[str, str] = os.environ) -> None:
        self._clock = clock
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]  # Linux's abstract sockets, shown with @ in text
        self.watchdog_interval_s = _watchdog_interval_s(environment)

    def ready(self, status: str = "") -> None:
        """Every source is being watched."""
        self._send("READY=1", status)

    def alive(self, status: str = "") -> None:
        """Feed the watchdog; to be called only while lines make progress."""
        self._send("WATCHDOG=1", status)

    def reloading(self) -> None:
        """A new configuration is being taken over; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic_s() * 1_000_000)}")

    def stopping(self, status: str = "") -> None:
        """The agent drains and ends."""
        self._send("STOPPING=1", status)

    def extend_timeout(self, seconds: float) -> None:
        """Starting or stopping goes on and needs this long at most."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, message: str, status: str = "") -> None:
        if not self._address:
            return
        if status:
            # A newline would begin another assignment.
            message += "\nSTATUS=" + status.replace("\n", " ")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(errors="backslashreplace"), self._address)
        except OSError:
            # The manager restarts what stays silent; nothing better can be done from here.
            return


def _watchdog_interval_s(environment: Mapping[str, str]) -> float | None:
    """How often `alive` must be called: half the manager's limit; None when it asks for none of this process."""
    usec = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000
