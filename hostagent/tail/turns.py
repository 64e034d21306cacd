"""Turns: which files have something to read, and one chunk from each of them after the other.

The reader says which files became ready; here each gets its turn, round and round, and a cursor without room for its
lanes waits until they have. A record that has not ended is delivered when its time is up. What a rewrite or an end
means is decided by `ending`, what the bytes mean by the chain behind `feed`. The reader's thread alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from hostagent.clock import Clock
from hostagent.state.rows import Position
from hostagent.tail.ending import Ending
from hostagent.tail.feed import Feed, Step
from hostagent.tail.files.copies import Copies
from hostagent.tail.files.elsewhere import has_copy
from hostagent.tail.files.identity import FINGERPRINT_BYTES
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.places import Places
from hostagent.tail.ports import Lane
from hostagent.tail.tailer import PLAIN, Cursor, RewrittenError, TailedFile

ROUND_S = 0.05
"""A round of reading ends after this long even if more is there."""

NAMES_S = 0.002
"""How long names go unseen while files are read: one that is there for a moment only must be opened in it."""

PLENTY_BYTES = 512 * 1024
"""Where each round brings this much, blocks are full long before they are due."""


class Turns:
    """The files that are ready, those that wait for room, and the records that wait for their end.

    `now_s` is when the reader last looked around, `plenty` whether the last round brought much; `room` tells whether a
    lane may have another part.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        places: Places,
        copies: Copies,
        feed: Feed,
        lanes: Sequence[Lane],
        clock: Clock,
        max_deleted_bytes: int,
        room: Callable[[Lane], bool],
    ) -> None:
        self.ending = Ending(
            registry=registry,
            places=places,
            copies=copies,
            feed=feed,
            clock=clock,
            turn=lambda tailed, final: self.turn(tailed, final=final),
            max_deleted_bytes=max_deleted_bytes,
        )
        self.now_s = clock.monotonic_s()
        self.plenty = False
        self._registry = registry
        self._feed = feed
        self._clock = clock
        self._room = room
        self._ready: deque[TailedFile] = deque()
        self._pending: dict[TailedFile, tuple[int, float]] = {}
        self.use_lanes(lanes)

    def use_lanes(self, lanes: Sequence[Lane]) -> None:
        """Serve these lanes from now on; whoever waited for others must be made ready again."""
        self._lanes = tuple(lanes)
        self._waiting: dict[str, dict[TailedFile, None]] = {lane.name: {} for lane in lanes}

    @property
    def any_ready(self) -> bool:
        """Whether a round would have something to do."""
        return bool(self._ready)

    def due_s(self, now_s: float) -> float:
        """Seconds until `flush_due` has something to do."""
        if self._registry.rows.stalled:
            return float("inf")
        return min((due_s for _, due_s in self._pending.values()), default=float("inf")) - now_s

    def flush_due(self, now_s: float) -> None:
        """Deliver the records whose time is up though they have not ended."""
        if self._registry.rows.stalled:
            return
        for tailed, size in [(tailed, size) for tailed, (size, due_s) in self._pending.items() if due_s <= now_s]:
            del self._pending[tailed]
            self._flush_rest(tailed, size)

    def stop_waiting(self, tailed: TailedFile) -> bool:
        """Have a file wait for no lane's room any more; whether it did."""
        waited = [waiting for waiting in self._waiting.values() if tailed in waiting]
        for waiting in waited:
            del waiting[tailed]
        return bool(waited)

    def make_ready(self, tailed: TailedFile) -> None:
        """A file may have something to read."""
        if not tailed.queued and not tailed.closed:
            tailed.queued = tailed.unread = True
            self._ready.append(tailed)

    def admit(self) -> None:
        """Wake one waiting file per lane that has room; its turn may use the room up again."""
        for lane in self._lanes:
            waiting = self._waiting[lane.name]
            if waiting and self._room(lane):
                tailed = next(iter(waiting))
                del waiting[tailed]
                self.make_ready(tailed)

    def round(self, names_wait: Callable[[], bool]) -> bool:
        """Give every ready file a turn, again and again, for at most ROUND_S; whether any bytes were consumed.

        It ends sooner where the watcher has heard of names.
        """
        self.admit()
        before_bytes = self._feed.taken_bytes
        now_s = self._clock.monotonic_s()
        until_s = now_s + ROUND_S
        look_s = now_s + NAMES_S
        busy = False
        unsettled: list[TailedFile] = []
        while self._ready and self._registry.rows.register() and (now_s := self._clock.monotonic_s()) < until_s:
            if now_s >= look_s:
                if names_wait():
                    break
                look_s = now_s + NAMES_S
            tailed = self._ready.popleft()
            if not self._registry.is_settled(tailed):
                unsettled.append(tailed)
                continue
            tailed.queued = False
            busy = self.turn(tailed) or busy
            self.admit()
        self._ready.extend(unsettled)
        self.plenty = self._feed.taken_bytes - before_bytes >= PLENTY_BYTES
        return busy

    def look(self, tailed: TailedFile, reached: Position) -> None:
        """Notice that a file was rewritten though nobody may read on in it: what stood there may go on in a copy.

        Where it still has what lies before its cursors, it may not have what was read of it as far as `reached` once;
        then it was rewritten if a copy has that.
        """
        if tailed.closed or tailed.suspended or not tailed.row or not self._registry.ensure_open(tailed):
            return
        try:
            for cursor in tailed.cursors:
                tailed.fetch(cursor, FINGERPRINT_BYTES)  # at the beginning, that is all that tells
            rewritten = has_copy(self._registry, tailed, reached)
        except RewrittenError:
            rewritten = True
        except OSError as error:
            self._registry.unreadable(tailed, error)
            return
        if rewritten:
            for fresh in self.ending.rewritten(tailed, reached):
                self.make_ready(fresh)

    def turn(self, tailed: TailedFile, *, final: bool = False) -> bool:
        """Read one chunk for each of the file's cursors; queue the file again if there is more."""
        if tailed.closed or tailed.suspended or not tailed.row or self.ending.joins.holds_back(tailed):
            return False
        if not self._registry.ensure_open(tailed) or self._registry.turned_out_stored(tailed):
            return False
        self._registry.rows.note_beginning(tailed)
        busy = more = left = False
        try:
            for cursor in list(tailed.cursors):
                able = self._able(tailed, cursor)
                left = left or able is not cursor
                if able is None:
                    continue
                step = self._feed.step(tailed, able, final=final)
                self._note_rest(tailed, able, step)
                busy = busy or step.consumed > 0
                more = more or step.more
                left = left or bool(step.rest)
        except RewrittenError:
            for fresh in self.ending.rewritten(tailed):
                self.make_ready(fresh)
            return True
        except OSError as error:
            self._registry.unreadable(tailed, error)
            return busy
        except Exception as error:  # noqa: BLE001 - plugins' code runs on hostile bytes: it stops this file, no other
            self._registry.refused.suspend(tailed, error)
            return busy
        tailed.unread = more or left
        if busy:
            tailed.merge()
            tailed.grew_at_s = self.now_s
            if tailed.behind_since_s is None:
                tailed.behind_since_s = self.now_s
            self._registry.rows.note_growth(tailed)
        if more:
            self.make_ready(tailed)
        return busy

    def _flush_rest(self, tailed: TailedFile, size: int) -> None:
        """The time of a record that had not ended when the file was this long is up: deliver it as far as it goes.

        What has come since gets a time of its own, and so does part of a line behind whole ones.
        """
        if tailed.closed or tailed.suspended or not self._registry.ensure_open(tailed):
            return
        chain = tailed.origin.chain
        try:
            for cursor in list(tailed.cursors):
                able = self._able(tailed, cursor)
                if able is None:
                    continue
                fetched = tailed.fetch(able, self._feed.chunk_bytes + chain.reach_bytes)
                if able.offset + len(fetched.data) != size:
                    continue
                whole = chain.whole_lines(fetched.data)
                if tailed.origin.policy.flush_partial_after_s is None or (chain.flush_after_s is not None and whole):
                    fetched = fetched._replace(data=fetched.data[:whole])
                self._feed.consume(tailed, able, fetched, final=True)
            tailed.merge()
        except (RewrittenError, OSError):
            pass  # the turn that follows meets it again and knows what to do
        except Exception as error:  # noqa: BLE001 - the chain runs plugins' code, as in a turn
            self._registry.refused.suspend(tailed, error)
        self.make_ready(tailed)

    def _able(self, tailed: TailedFile, cursor: Cursor) -> Cursor | None:
        """The part of the cursor whose lanes have room; the file waits for the others. RewrittenError, OSError."""
        able = tuple(lane for lane in cursor.lanes if self._room(lane))
        if len(able) == len(cursor.lanes):
            return cursor
        for lane in cursor.lanes:
            if lane not in able:
                self._waiting.setdefault(lane.name, {})[tailed] = None
        if able:
            return tailed.split(cursor, able)
        if tailed.storage == PLAIN:
            tailed.fetch(cursor, FINGERPRINT_BYTES)  # was it truncated? Its copy may be gone by the time it is read on
        return None

    def _note_rest(self, tailed: TailedFile, cursor: Cursor, step: Step) -> None:
        """Start, restart or end the time-out of a record that has not ended yet."""
        if not step.rest:
            self._pending.pop(tailed, None)
            return
        size = cursor.offset + len(step.rest)
        known = self._pending.get(tailed)
        if known is None or known[0] != size:
            wait_s = self._patience_s(tailed, step.rest)
            if wait_s is not None:
                self._pending[tailed] = (size, self.now_s + wait_s)

    def _patience_s(self, tailed: TailedFile, rest: bytes) -> float | None:
        """How long these unconsumed bytes may wait for more: lines as the chain says, part of one as the source."""
        chain = tailed.origin.chain
        if chain.flush_after_s is not None and chain.whole_lines(rest):
            return chain.flush_after_s
        return tailed.origin.policy.flush_partial_after_s
