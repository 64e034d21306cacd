"""The blocks of one output between being cut and being acked, in order: in memory, and behind that in the spool.

Owns what is durable and what is acked: a block is begun in the checkpoint before it is first offered, and counts as
acked once it is delivered or synced into the spool. The spool's blocks always go first; while it holds any, new blocks
queue behind it. The reader's thread puts blocks and may secure them; all else is the sender's. It never sends.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection

from hostagent.clock import Clock
from hostagent.deliver.compress import Compressor
from hostagent.deliver.late_spool import LateSpool
from hostagent.deliver.pace import Pace
from hostagent.deliver.pieces import delivery_of, without_payload
from hostagent.deliver.spool_news import SpoolNews
from hostagent.deliver.status import Counters
from hostagent.deliver.waiting import Head, Journal, Waiting, begin
from hostagent.errors import StateError
from hostagent.hookspecs import Encoder
from hostagent.model import Block, Delivery
from hostagent.state.letters import LetterPart, whole_parts
from hostagent.state.rows import parts_of
from hostagent.state.spool.spool import Spool
from hostagent.state.spool.spooled import Place

# An ack waits for the next commit while there is more to send, but not longer than this.
ACK_DELAY_S = 0.2
# A block waits so long for others to go to the spool with it: two commits and a sync cost the same for one and for all.
SPOOL_DELAY_S = 0.3


class Backlog:
    """One output's blocks. Methods that touch the disk may raise StateError; nothing is lost by it, call them again.

    `on_finished(block)` is called when a block's payload is let go, `on_acked(block)` once its ack is committed; what
    the latter is given has no payloads any more.
    """

    def __init__(
        self,
        *,
        output: str,
        encoder: Encoder,
        make_compressor: Callable[[], Compressor],
        journal: Journal,
        spool: Spool | LateSpool | None,
        clock: Clock,
        counters: Counters,
        max_blocks: int,
        on_finished: Callable[[Block], None],
        on_acked: Callable[[Block], None],
    ) -> None:
        self.wake = threading.Event()
        self.spool_fault = ""
        self._output = output
        self._encoder = encoder
        self._compressor = make_compressor()
        self._make_compressor = make_compressor
        self._journal = journal
        self._late = spool if isinstance(spool, LateSpool) else None
        self._spool = spool if isinstance(spool, Spool) else None
        self._clock = clock
        self._counters = counters
        self._max_blocks = max_blocks
        self._on_finished = on_finished
        self._on_acked = on_acked
        self._lock = threading.Lock()
        self._incoming: deque[Waiting] = deque()
        self._fresh: deque[Waiting] = deque()
        self._begun: deque[Waiting] = deque()
        self._done: list[Block] = []
        self._done_since_s = 0.0
        self._news = SpoolNews(output, clock)
        self._acked: deque[Block] = deque()
        self._head: Head | None = None
        self._pace = Pace(clock)
        self._put = 0
        self._finished = 0
        self._starved = False
        self._wanted = False

    # -- the reader's thread -------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Blocks in memory that are neither delivered nor spooled; from any thread."""
        return self._put - self._finished

    def room(self) -> bool:
        """Whether another block may be put. A "no" is remembered: `on_finished` may ask `starved` who waits."""
        if self.waiting < self._max_blocks:
            return True
        self._starved = True
        # The sender may have finished a block between the look and the mark, and then nobody would wake us.
        return self.waiting < self._max_blocks

    def put(self, block: Block, *, durable: bool = False) -> None:
        """Append a block; the reader asks `room` before it gathers one, so this never refuses."""
        self._incoming.append(Waiting(block, durable, self._clock.monotonic_s()))
        self._put += 1
        self.wake.set()

    def secure(self, files: Collection[int]) -> bool:
        """Spool what is in memory if it holds ranges of these files; False when the spool can't take it now."""
        with self._lock:
            self._gather()
            held = [waiting.block for waiting in self._in_memory()]
            if not any(range_.file in files for block in held for part in block.parts for range_ in part.ranges):
                self.wake.set()
                return True
            begin(self._journal, self._fresh, needed=False)
            # A compressor serves one thread at a time, and the sender may be using its own.
            self._wanted = not (moved := self._divert(self._make_compressor()))
        self.wake.set()
        return moved

    # -- the sender's thread -------------------------------------------------------------------------------------

    def take_starved(self) -> bool:
        """Whether the reader was told "no" since the last time."""
        starved, self._starved = self._starved, False
        return starved

    @property
    def full(self) -> bool:
        """Whether the reader has to wait."""
        return self.waiting >= self._max_blocks

    @property
    def spooling(self) -> bool:
        """Whether blocks wait in the spool; unknown counts as yes, so that order is kept."""
        try:
            return self._spool is not None and self._spool.head() is not None
        except StateError:
            return True

    @property
    def acks_due(self) -> bool:
        """Whether a commit should come before the next block is sent."""
        return not self._begun or bool(self._done and self._clock.monotonic_s() - self._done_since_s >= ACK_DELAY_S)

    @property
    def spool(self) -> Spool | None:
        """The spool, unless it can't be opened; from any thread."""
        return self._spool

    @property
    def late_spool(self) -> LateSpool | None:
        """The spool while it can't be opened; from any thread."""
        return self._late

    def look_for_spool(self) -> bool:
        """Try to open a spool that could not be opened; True when what `head` gave has to wait behind what it holds."""
        if self._late is None or self._late.due_in_s() > 0:
            return False
        if (spool := self._late.open()) is None:
            return False
        with self._lock:
            self._spool, self._late = spool, None
            head = self._head
            if head is None or head.waiting is None or not self.spooling:
                return False
            self._begun.appendleft(head.waiting)
            self._head = None
            return True

    def spool_due_s(self) -> float | None:
        """When what is in memory should go to the spool of an output that is down; None when there is nothing.

        The reader needs room for one block to go on while this one's sender is busy with the disk.
        """
        oldest_s = self.oldest_s()
        if oldest_s is None:
            return None
        return oldest_s if self.waiting >= self._max_blocks - 1 else oldest_s + SPOOL_DELAY_S

    def oldest_s(self) -> float | None:
        """When the oldest block in memory was cut, None when there is none."""
        with self._lock:
            self._gather()
            waiting = self._in_memory()
        return waiting[0].cut_s if waiting else None

    def settle(self, *, divert: bool = False) -> None:
        """Commit acks, and begin what waits; it is spooled with `divert`, or behind a spool that is not soon empty."""
        with self._lock:
            self._gather()
            spooling = self.spooling
            if divert or not spooling:
                self._pace.reset()
            if divert or self._wanted or (spooling and self._fresh and not self._pace.soon_empty(self._spool)):
                begin(self._journal, self._fresh)
                self._wanted = not self._divert(self._compressor) and self._wanted
                spooling = spooling or self.spooling
            begun = [] if spooling else [waiting.block for waiting in self._fresh if not waiting.durable]
            change = self._news.change(self._spool, waits=spooling)
            if begun or self._done or change is not None:
                self._journal.commit(begun=begun, acked=self._done, spool=change)
                self._news.committed(change)
            if not spooling:
                self._begun.extend(self._fresh)
                self._fresh.clear()
            self._acked.extend(self._done)
            self._done = []
            if not (spooling or divert or self._wanted):
                self.spool_fault = ""
        while self._acked:  # one by one, so that an error in there repeats nothing
            self._on_acked(self._acked.popleft())

    def head(self) -> Delivery | None:
        """The next delivery, the same one until `delivered`; None when nothing waits that may be sent."""
        with self._lock:
            if self._head is None or (self._head.waiting is None and self._head.delivery is None):
                self._head = self._next()
            if (head := self._head) is None:
                return None
            waiting, delivery = head.waiting, head.delivery
        if delivery is None:
            assert waiting is not None
            delivery = head.delivery = delivery_of(waiting.block, self._encoder, self._compressor)
        return delivery

    def origin(self) -> list[LetterPart]:
        """Where the records of what `head` gave came from, in order."""
        with self._lock:
            return whole_parts(self._head.parts if self._head is not None else ())

    def delivered(self) -> int:
        """What `head` gave has been delivered, or is among the dead letters; how many bytes of log it was."""
        with self._lock:
            head = self._head
            assert head is not None
            assert head.delivery is not None
            if head.waiting is not None:
                raw_bytes = head.waiting.block.raw_bytes
                self._finish(head.waiting.block)
            else:
                raw_bytes = self._advance(head.delivery.block)
            self._head = None
            return raw_bytes

    def empty(self) -> bool:
        """Whether nothing is left in memory, not even an ack."""
        return not (self.waiting or self._done or self._acked)

    def close(self) -> None:
        """Let go of the spool; nothing may be asked of it afterwards."""
        with self._lock:
            if self._spool is not None:
                self._spool.close()

    # -- under the lock ------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """Take over what the reader has put. `wake` is cleared first: what is put from now on sets it again."""
        self.wake.clear()
        while self._incoming:
            self._fresh.append(self._incoming.popleft())

    def _next(self) -> Head | None:
        spooled = self._spool.head() if self._spool is not None else None
        if spooled is not None:
            return Head(None, spooled.delivery, spooled.parts)
        if not self._begun:
            return None
        waiting = self._begun.popleft()
        return Head(waiting, None, parts_of(waiting.block))

    def _in_memory(self) -> list[Waiting]:
        head = [self._head.waiting] if self._head is not None and self._head.waiting is not None else []
        return [*head, *self._begun, *self._fresh]

    def _divert(self, compressor: Compressor) -> bool:
        """Move what is in memory to the spool, in order, as far as it has room; whether all of it was moved.

        A fault of the spool is noted, not raised: acks must still be committed, and the blocks stay where they are.
        """
        if self._spool is None:
            return False
        moving: list[tuple[Waiting, Place]] = []
        waiting = self._in_memory()
        try:
            for one in waiting:
                made = self._head.delivery if self._head is not None and one is self._head.waiting else None
                place = self._spool.append(one.block, made or delivery_of(one.block, self._encoder, compressor))
                if place is None:
                    break
                moving.append((one, place))
        except StateError as error:
            self.spool_fault = str(error)
        else:
            self.spool_fault = ""
        if moving:
            try:
                self._spool.sync()
            except StateError as error:
                self.spool_fault = str(error)
                return False
        for one, place in moving:
            self._leave_memory(one, place)
        return len(moving) == len(waiting)

    def _leave_memory(self, waiting: Waiting, place: Place) -> None:
        """A block is durable in the spool: from there on it counts as acked."""
        assert self._spool is not None
        if self._head is not None and self._head.waiting is waiting:
            self._head.waiting = None  # the sender may be compressing it right now: it stays the head
            self._hold()
        else:
            (self._begun or self._fresh).popleft()
        self._counters.spooled += 1
        self._finish(waiting.block)
        self._news.add(place, self._done[-1])

    def _advance(self, block_id: str) -> int:
        assert self._spool is not None
        spooled = self._spool.head()
        # Another one may stand there if this one's segment was damaged meanwhile: that one was not delivered.
        if spooled is None or spooled.id != block_id:
            return 0
        try:
            self._spool.advance()
        except StateError as error:  # it has gone on; only a drained segment could not be removed
            self.spool_fault = str(error)
        self._pace.drained(spooled.header.raw_bytes)
        return spooled.header.raw_bytes

    def _hold(self) -> None:
        """The block on its way is the spool's first now; having asked for it keeps `drop_oldest` away from it."""
        try:
            assert self._spool is not None
            self._spool.head()
        except StateError as error:
            self.spool_fault = str(error)

    def _finish(self, block: Block) -> None:
        if not self._done:
            self._done_since_s = self._clock.monotonic_s()
        self._done.append(without_payload(block))
        self._finished += 1
        self._on_finished(block)
