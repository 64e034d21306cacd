"""Ends back-offs early when the machine's network changes: a cable is plugged, an address or a route comes back.

Listens to the kernel's own announcements (rtnetlink multicast groups). It needs no privilege and looks at no message:
any change is a reason to try again now. docs/decisions/010 says why no library does this.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Callable

from hostagent.clock import Clock

log = logging.getLogger(__name__)

# linux/rtnetlink.h: RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_SETTLE_S = 0.5
"""Changes come in bursts (link, address, routes): one try after the burst is worth more than one in it."""


class NetworkWatch:
    """A thread that calls `on_change` after the network has changed."""

    def __init__(self, on_change: Callable[[], None], clock: Clock) -> None:
        self._on_change = on_change
        self._clock = clock
        self._stop = threading.Event()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)

    def start(self) -> None:
        """Listen from now on; a kernel or sandbox without rtnetlink only means that back-offs run their course."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        os.eventfd_write(self._wake_fd, 1)
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._wake_fd)

    def _run(self) -> None:
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
                sock.bind((0, _GROUPS))
                self._listen(sock)
        except OSError as error:
            log.info("network changes are not seen (%s); back-offs run their course", error.strerror)

    def _listen(self, sock: socket.socket) -> None:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        sock.setblocking(False)
        while not self._stop.is_set():
            poll.poll()
            if self._clock.wait(self._stop, _SETTLE_S):
                return
            _discard(sock)
            self._on_change()


def _discard(sock: socket.socket) -> None:
    """Empty the queue. ENOBUFS says that it overflowed, which is a change, too."""
    while True:
        try:
            sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            continue
