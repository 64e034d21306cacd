"""The thread of one output: takes blocks in order, makes them durable, has them delivered, commits the ack.

Owns the order of those steps, which is what no crash may break: the in-flight row is committed before the first byte is
sent, and a position moves only after the delivery has ended. It must not read files or know what an output speaks.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from hostagent.clock import Backoff, Clock
from hostagent.deliver.block_queue import BlockQueue, Queued
from hostagent.deliver.compress import Compressor
from hostagent.deliver.pieces import delivery_of, without_payload
from hostagent.deliver.status import Condition, Counters
from hostagent.deliver.transfer import DeadLetterBox, Transfer
from hostagent.errors import StateError
from hostagent.hookspecs import Encoder, Output
from hostagent.model import Block, Delivery

log = logging.getLogger(__name__)

# An ack waits for the next commit while there is more to send, but not longer than this.
ACK_DELAY_S = 0.2


class Journal(Protocol):
    """The checkpoint as a sender sees it."""

    def commit(self, begun: Sequence[Block], acked: Sequence[Block]) -> None:
        """In one transaction: in-flight rows in, positions forward, rows of the acked out. Raises StateError."""


class Stopped(Exception):  # noqa: N818 - leaving at a stop is no error
    """Raised through a delivery when the time to stop has come; what was not finished stays in flight."""


class Sender:
    """One output's thread. Everything here runs in that thread, except `start`, `stop`, `join` and `nudge`.

    `on_finished(block)` is called when a block has been delivered and its payload is let go, `on_acked(block)` once the
    ack is committed; what it is given has no payloads any more.
    """

    def __init__(
        self,
        *,
        name: str,
        queue: BlockQueue,
        output: Output,
        encoder: Encoder,
        compressor: Compressor,
        journal: Journal,
        dead_letters: DeadLetterBox,
        clock: Clock,
        on_finished: Callable[[Block], None],
        on_acked: Callable[[Block], None],
    ) -> None:
        self.counters = Counters()
        self.condition = Condition(clock)
        self._name = name
        self._queue = queue
        self._output = output
        self._encoder = encoder
        self._compressor = compressor
        self._journal = journal
        self._clock = clock
        self._on_finished = on_finished
        self._on_acked = on_acked
        self._backoff = Backoff()
        self._transfer = Transfer(
            name=name,
            output=output,
            encoder=encoder,
            compressor=compressor,
            dead_letters=dead_letters,
            backoff=self._backoff,
            wait=self._pause,
            counters=self.counters,
            condition=self.condition,
        )
        self._fresh: list[Queued] = []
        self._begun: deque[Block] = deque()
        self._done: list[Block] = []
        self._acked: deque[Block] = deque()
        self._state_failed = False
        self._done_since_s = 0.0
        self._sending: Delivery | None = None
        self._deadline_s: float | None = None
        self._nudged = False
        self._thread = threading.Thread(target=self._run, name=f"send:{name}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Finish what can be finished until `deadline_s` on the monotonic clock; does not wait, see `join`."""
        self._deadline_s = deadline_s
        self._queue.wake.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread; False when it is still busy in its output."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs, or has not been started yet."""
        return self._thread.ident is None or self._thread.is_alive()

    def nudge(self) -> None:
        """Try again now instead of at the end of the back-off: something about the network has changed."""
        self._nudged = True
        self._queue.wake.set()

    def _run(self) -> None:
        while True:
            try:
                self._work()
                break
            except Stopped:
                break
            except Exception as error:
                self.counters.crashes += 1
                message = f"unexpected {type(error).__name__} while sending, will try again: {error}"
                self.condition.failed(message)
                log.exception("output %s: %s", self._name, message)
            try:
                self._pause(self._backoff.next_s())
            except Stopped:
                break
        self._leave()

    def _work(self) -> None:
        """Take, begin, send, ack, until a stop is asked for and nothing is left."""
        while True:
            if not self._begun:
                self._settle()
            if self._begun:
                self._send_next()
                continue
            if self._deadline_s is not None and not self._queue.waiting:
                return
            self._clock.wait(self._queue.wake, None)

    def _send_next(self) -> None:
        self._check_deadline()
        block = self._begun[0]
        if self._sending is None or self._sending.block != block.id:
            self._sending = delivery_of(block, self._encoder, self._compressor)
        self._transfer.deliver(self._sending)
        counters = self.counters
        counters.compressed_bytes += len(self._sending.body)
        counters.blocks += 1
        counters.records += block.records
        counters.raw_bytes += block.raw_bytes
        counters.encoded_bytes += block.encoded_bytes
        self._sending = None
        if not self._done:
            self._done_since_s = self._clock.monotonic_s()
        self._done.append(without_payload(block))
        self._begun.popleft()
        self._on_finished(block)
        if self._begun and self._clock.monotonic_s() - self._done_since_s >= ACK_DELAY_S:
            self._settle()

    def _settle(self) -> None:
        """Commit what is done together with the beginning of all that waits; tries until the state can be written."""
        while True:
            self._fresh += self._queue.take()
            begun = [queued.block for queued in self._fresh if not queued.durable]
            if not begun and not self._done:
                break
            try:
                self._journal.commit(begun=begun, acked=self._done)
                break
            except StateError as error:
                self._state_failed = True
                if self.condition.failed(f"the checkpoint can't be written, delivery waits: {error}"):
                    log.warning("output %s: %s", self._name, self.condition.error[0])
                self._pause(self._backoff.next_s())
        self._begun.extend(queued.block for queued in self._fresh)
        self._fresh = []
        self._acked.extend(self._done)
        self._done = []
        self._announce()
        if self._state_failed:
            self._state_failed = False
            self._backoff.reset()
            self.condition.enter("ok")
            log.info("output %s: the checkpoint can be written again", self._name)

    def _announce(self) -> None:
        """Tell who waits for acks; one by one, so that an error in there repeats nothing."""
        while self._acked:
            self._on_acked(self._acked.popleft())

    def _pause(self, delay_s: float) -> None:
        """Wait out a back-off, a nudge or a stop; raises Stopped when there is no more time to try."""
        until_s = self._clock.monotonic_s() + delay_s
        was_stopping = self._deadline_s is not None
        while True:
            self._check_deadline()
            if self._nudged:
                self._nudged = False
                self._backoff.reset()
                return
            if self._deadline_s is not None and not was_stopping:
                return  # one more try right now: the last chance before the stop
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0:
                return
            if self._deadline_s is not None:
                left_s = min(left_s, max(0.0, self._deadline_s - self._clock.monotonic_s()))
            self._clock.wait(self._queue.wake, left_s)
            self._queue.wake.clear()

    def _check_deadline(self) -> None:
        if self._deadline_s is not None and self._clock.monotonic_s() >= self._deadline_s:
            raise Stopped

    def _leave(self) -> None:
        """The last steps of the thread: acks that are still open, then the output is closed."""
        if self._done:
            try:
                self._journal.commit(begun=(), acked=self._done)
                self._acked.extend(self._done)
                self._done = []
                self._announce()
            except StateError as error:
                log.warning("output %s: the last acks are not stored, those blocks come again: %s", self._name, error)
        self.condition.enter("stopped")
        try:
            self._output.close()
        except Exception:
            log.exception("output %s: closing failed", self._name)
