"""The thread of one output: takes blocks in order, makes them durable, has them delivered, commits the ack.

Owns the order of those steps, which is what no crash may break, and the judgement when blocks go to the spool: when the
output is down, or so slow that a block has waited for long while the reader stands still. It must not read files or
know what an output speaks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from hostagent.clock import Backoff, Clock
from hostagent.deliver.again import Again, AgainQueue
from hostagent.deliver.backlog import Backlog
from hostagent.deliver.breaker import Breaker
from hostagent.deliver.compress import Compressor
from hostagent.deliver.status import Condition, Counters
from hostagent.deliver.transfer import DeadLetterBox, Divisions, Refused, Transfer
from hostagent.errors import StateError
from hostagent.hookspecs import Encoder, Output
from hostagent.model import Delivery

log = logging.getLogger(__name__)

T = TypeVar("T")

# An output is slower than its input when the reader waits for it and the oldest block is this old.
SLOW_AFTER_S = 10.0
# One block asked about six times a minute is no load for a backend, and it is found again soon after it is back.
LONGEST_BACKOFF_S = 10.0


class Stopped(Exception):  # noqa: N818 - leaving at a stop is no error
    """Raised through a delivery when the time to stop has come; what was not finished stays in flight or spooled."""


class Overtaken(Exception):  # noqa: N818 - this is no error either
    """Raised through a delivery when older blocks have turned up: it comes again behind them."""


class Sender:
    """One output's thread. Everything here runs in that thread, except `start`, `stop`, `join`, `alive` and `nudge`."""

    def __init__(
        self,
        *,
        name: str,
        backlog: Backlog,
        output: Output,
        encoder: Encoder,
        compressor: Compressor,
        dead_letters: DeadLetterBox,
        divisions: Divisions,
        clock: Clock,
        counters: Counters,
        condition: Condition,
    ) -> None:
        self._name = name
        self._backlog = backlog
        self._output = output
        self._clock = clock
        self._counters = counters
        self._condition = condition
        self._backoff = Backoff(longest_s=LONGEST_BACKOFF_S)
        self._breaker = Breaker()
        self._transfer = Transfer(
            name=name,
            output=output,
            encoder=encoder,
            compressor=compressor,
            dead_letters=dead_letters,
            divisions=divisions,
            backoff=self._backoff,
            watch=self,
            counters=counters,
        )
        self._again = AgainQueue()
        self._state_failed = False
        self._deadline_s: float | None = None
        self._nudged = False
        self._thread = threading.Thread(target=self._run, name=f"send:{name}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Finish what can be finished until `deadline_s` on the monotonic clock; does not wait, see `join`."""
        self._deadline_s = deadline_s
        self._backlog.wake.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread; False when it is still busy in its output."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def send_again(self, source: Iterator[Again]) -> None:
        """Send these deliveries once more, between what is due; from any thread."""
        self._again.put(source)
        self._backlog.wake.set()

    @property
    def alive(self) -> bool:
        """Whether the thread runs, or has not been started yet."""
        return self._thread.ident is None or self._thread.is_alive()

    @property
    def failing(self) -> bool:
        """Whether the last thing the output said was that it can't."""
        return self._breaker.failing

    @property
    def gone(self) -> bool:
        """Whether the output has said that it can't work any more in this process."""
        return self._transfer.gone

    def nudge(self) -> None:
        """Try again now instead of at the end of the back-off: something was mended, or may have been."""
        self._nudged = True
        self._backlog.wake.set()

    # -- told by the transfer ------------------------------------------------------------------------------------

    def failed(self, message: str) -> None:
        """The output can't take the delivery now."""
        self._breaker.failed(self._clock.monotonic_s())
        self._note(message)

    def answered(self) -> None:
        """The output has given a verdict."""
        self._breaker.succeeded()
        if self._condition.enter("spooling" if self._backlog.spooling else "ok"):
            log.info("output %s: delivers again", self._name)

    def pause(self, delay_s: float) -> None:
        """Wait out a back-off within a delivery; raises Stopped when there is no more time to try.

        Meanwhile a spool that could not be opened is tried again, and raises Overtaken when blocks wait in it.
        """
        self._pause(delay_s, delivering=True)

    def _pause(self, delay_s: float, *, delivering: bool = False, spooling: bool = True) -> None:
        """Wait for so long, or for a nudge or a stop; raises Stopped when there is no more time to try.

        Meanwhile, if the output counts as down, what the reader brings goes to the spool.
        """
        until_s = self._clock.monotonic_s() + delay_s
        was_stopping = self._deadline_s is not None
        while True:
            if delivering and not self._transfer.halfway and self._backlog.look_for_spool():
                raise Overtaken
            spool_due_s = self._spool_while_down() if spooling else None
            now_s = self._clock.monotonic_s()
            if self._deadline_s is not None:
                if now_s >= self._deadline_s or self._backlog.empty():
                    raise Stopped
                if not was_stopping:
                    return  # one more try right now: the last chance before the stop
            if self._nudged:
                self._nudged = False
                self._backoff.reset()
                return
            if now_s >= until_s:
                return
            opens_in_s = self._breaker.opens_in_s(now_s) or delay_s
            late = self._backlog.late_spool
            spool_in_s = (late.due_in_s() if late is not None else 0.0) or delay_s
            ends = (
                until_s,
                now_s + opens_in_s,
                now_s + spool_in_s,
                spool_due_s or until_s,
                self._deadline_s or until_s,
            )
            self._clock.wait(self._backlog.wake, min(ends) - now_s)
            self._backlog.wake.clear()

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        crashes = 0  # since the last time that a pause went well
        while True:
            try:
                if crashes:
                    # Spooling meanwhile may be what fails.
                    self._pause(self._backoff.next_s(), spooling=crashes == 1)
                    crashes = 0
                self._work()
                break
            except Stopped:
                break
            except Exception as error:  # a thread's top, and a plugin's output: its blocks wait and are tried again
                crashes += 1
                self._counters.crashes += 1
                message = f"unexpected {type(error).__name__} while sending, will try again: {error}"
                self.failed(message)
                log.exception("output %s: %s", self._name, message)
        self._leave()

    def _work(self) -> None:
        """Take, begin, send, ack, until a stop is asked for and nothing is left in memory."""
        while True:
            if self._backlog.acks_due:
                self._with_state(self._backlog.settle)
            stopping = self._deadline_s is not None
            if stopping and self._backlog.empty():
                return
            self._backlog.look_for_spool()
            delivery = self._with_state(self._backlog.head)
            if delivery is None:
                if not stopping and self._send_again():
                    continue
                if not self._backlog.waiting and (not stopping or self._backlog.empty()):
                    self._wait_for_work()
                continue
            if stopping and self._clock.monotonic_s() >= (self._deadline_s or 0.0):
                raise Stopped
            try:
                refused = self._transfer.deliver(delivery, self._backlog.origin)
            except Overtaken:
                continue
            self._count(delivery, self._with_state(self._backlog.delivered), refused)
            if self._backlog.full and self._is_slow():
                self._with_state(partial(self._backlog.settle, divert=True))
            if not stopping:
                self._send_again()

    def _send_again(self) -> bool:
        """Send one delivery that was given up once, if an operator wants that; whether there was one."""
        again = self._again.head()
        if again is None:
            return False
        self._transfer.deliver(again.delivery, lambda: again.parts)
        self._again.done()
        return True

    def _wait_for_work(self) -> None:
        self._condition.enter("ok")
        if self._deadline_s is None:
            late = self._backlog.late_spool
            self._clock.wait(self._backlog.wake, late.due_in_s() if late is not None else None)

    def _is_slow(self) -> bool:
        oldest_s = self._backlog.oldest_s()
        return oldest_s is not None and self._clock.monotonic_s() - oldest_s >= SLOW_AFTER_S

    def _count(self, delivery: Delivery, raw_bytes: int, refused: Refused) -> None:
        if refused.records == delivery.records:
            return
        counters = self._counters
        counters.blocks += 1
        counters.records += delivery.records - refused.records
        counters.raw_bytes += raw_bytes - refused.raw_bytes
        counters.compressed_bytes += len(delivery.body)

    def _with_state(self, step: Callable[[], T]) -> T:
        """Do a step that needs the checkpoint or the spool, again and again until they can be used."""
        while True:
            try:
                result = step()
            except StateError as error:
                self._state_failed = True
                self._note(f"delivery waits: {error}")
                self._pause(self._backoff.next_s())
                continue
            if self._state_failed:
                self._state_failed = False
                self._backoff.reset()
                self._condition.enter("ok")
                log.info("output %s: its state can be written again", self._name)
            return result

    def _spool_while_down(self) -> float | None:
        """Spool what waits if the output counts as down; when to look again, if something gathers."""
        now_s = self._clock.monotonic_s()
        stopping = self._deadline_s is not None and self._breaker.failing
        if not (self._breaker.open(now_s) or stopping):
            return None
        due_s = self._backlog.spool_due_s()
        if due_s is not None and due_s > now_s and not stopping:
            return due_s
        try:
            self._backlog.settle(divert=True)
        except StateError as error:
            self._note(f"delivery waits: {error}")
            return None
        if self._backlog.spooling:
            self._condition.enter("spooling")
        return None

    def _note(self, message: str) -> None:
        if self._condition.failed(message, "spooling" if self._backlog.spooling else "retrying"):
            log.warning("output %s: %s", self._name, message)

    def _leave(self) -> None:
        """The last steps of the thread: acks that are still open, then the output is closed."""
        try:
            self._backlog.settle()
        except StateError as error:
            log.warning("output %s: the last acks are not stored, those blocks come again: %s", self._name, error)
        self._backlog.close()
        self._condition.enter("stopped")
        try:
            self._output.close()
        except Exception:  # a plugin's code, at the end of its thread: nothing is left that could go wrong by it
            log.exception("output %s: closing failed", self._name)
