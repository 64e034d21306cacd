"""What a service manager or a person at a terminal asks by signals: to stop, or to look at the configuration now.

Signals are taken from the first line of `run` on. Until there is something that must be ended in order, a stop ends the
process on the spot; after that it only sets events, on which the daemon waits. It must not know what is done then.
"""

from __future__ import annotations

import signal
import threading
from queue import SimpleQueue

from hostagent.errors import EXIT_OK


class Signals:
    """The signals of this process; made once, in its main thread."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reload = threading.Event()
        self.wake = threading.Event()
        self._asked: SimpleQueue[int] = SimpleQueue()
        self._begun = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._take)

    def begin(self) -> None:
        """From now on a stop is the daemon's work."""
        self._begun = True
        threading.Thread(target=self._pass_on, name="signals", daemon=True).start()

    def _take(self, number: int, _frame: object) -> None:
        # It interrupts the main thread anywhere, also inside an event's own lock: setting one here could wait for ever.
        self._asked.put(number)
        if number != signal.SIGHUP and not self._begun:
            raise SystemExit(EXIT_OK)

    def _pass_on(self) -> None:
        while True:
            event = self.reload if self._asked.get() == signal.SIGHUP else self.stop
            event.set()
            self.wake.set()
