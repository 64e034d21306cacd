"""The reader: one thread that takes bytes from files to blocks.

It waits for the watcher, lets the registry say which files changed, and reads those, a chunk a turn, round and round,
so that a flood in one file delays no other. A lane without room stops only the cursors that need it. The reader's
thread owns every TailedFile; other threads reach it through `post`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from hostagent.clock import Clock
from hostagent.hookspecs import Notice
from hostagent.model import Block
from hostagent.tail.copies import Copies
from hostagent.tail.ending import Ending
from hostagent.tail.feed import Feed, Step
from hostagent.tail.places import Place, Places
from hostagent.tail.ports import Lane
from hostagent.tail.registry import Registry
from hostagent.tail.resume import close_vanished, drop_target, open_target, swap_target
from hostagent.tail.sightings import Sightings
from hostagent.tail.tailer import Cursor, RewrittenError, TailedFile
from hostagent.tail.watcher import Event, Kind, Watcher

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PACE_S = 0.1
"""Pause after files that are being written right now were read to their end: writes pile up into one read, whose price
hardly depends on its size below a chunk."""

GLANCE_S = 0.05
"""How long names go unseen in such a pause: a file that is there for a moment must be opened in it."""

WRITES = (Kind.MODIFIED, Kind.CLOSED)

RESTLESS_GLANCE_S = 0.025
RESTLESS_S = 5.0
"""The same for so long after a name came, went or moved. A log that is rotated at a MiB and written at full speed is
renamed more than ten times a second, and deleted soon after that."""

ROUND_S = 0.05
"""A round of reading ends after this long even if more is there: new files must be opened soon."""

IDLE_S = 1.0
"""The longest the reader sleeps: its heartbeat is what the watchdog and /healthz look at."""

FAREWELL_S = 5.0
"""How long the rest of deleted files may take when the agent stops."""


class Reader:
    """Reads what the registry calls ready. Construct, then `run` in a thread of its own."""

    def __init__(
        self,
        *,
        registry: Registry,
        places: Places,
        watcher: Watcher,
        feed: Feed,
        lanes: Sequence[Lane],
        clock: Clock,
        rescan_interval_s: float,
        max_deleted_bytes: int,
    ) -> None:
        copies = Copies(registry, clock)
        self.sightings = Sightings(registry, places, copies, clock, rescan_interval_s)
        self._registry = registry
        self._places = places
        self._copies = copies
        self._watcher = watcher
        self._feed = feed
        self._lanes = tuple(lanes)
        self._clock = clock
        self._ready: deque[TailedFile] = deque()
        self._waiting: dict[str, dict[TailedFile, None]] = {lane.name: {} for lane in lanes}
        self._pending: dict[TailedFile, tuple[int, float]] = {}
        self._posted: deque[Callable[[], None]] = deque()
        self._urgent = threading.Event()
        self._acked: deque[Block] = deque()
        self._ending = Ending(
            registry=registry,
            places=places,
            copies=copies,
            feed=feed,
            clock=clock,
            turn=lambda tailed, final: self._turn(tailed, final=final),
            max_deleted_bytes=max_deleted_bytes,
        )
        self._restless_until_s = 0.0
        self.heartbeat_s = clock.monotonic_s()

    def post(self, action: Callable[[], None]) -> None:
        """Have `action` run in the reader's thread, soon. From any thread."""
        self._posted.append(action)
        self.wake()

    def ask(self, question: Callable[[], Answer], timeout_s: float) -> Answer | None:
        """Have `question` answered in the reader's thread; None when it doesn't come to it in time.

        What goes wrong with the question is raised here: it is the asker's matter, and none of the logs'.
        """
        answers: list[Answer] = []
        failures: list[Exception] = []
        answered = threading.Event()

        def answer() -> None:
            try:
                answers.append(question())
            except Exception as error:
                log.debug("a question failed: %s", error, exc_info=True)
                failures.append(error)
            answered.set()

        self.post(answer)
        self._clock.wait(answered, timeout_s)
        if failures:
            raise failures[0]
        return answers[0] if answers else None

    def wake(self) -> None:
        """End the reader's wait: something changed outside the watcher. From any thread."""
        self._urgent.set()
        self._watcher.wake()

    def note_acked(self, block: Block) -> None:
        """Positions of a block have moved; seen with the next turn. From any thread."""
        self._acked.append(block)

    def open_target(self, place: Place) -> None:
        """Take up a target that a discovery has published, or go on with one that has changed. See `post`."""
        if place.origin.target.id in self._places.by_id:
            swap_target(self._registry, self._places, place)
            ready = self.sightings.rescan(place.origin.target.id)
        else:
            ready = open_target(self._registry, self._places, self._ending, place)
        for tailed in ready:
            self._make_ready(tailed)

    def drop_target(self, target_id: str) -> None:
        """A target is gone: drain its files, then close them. In the reader's thread: see `post`."""
        drop_target(self._registry, self._places, target_id)

    def close_vanished(self, source: str, outputs: Sequence[str]) -> None:
        """A source has declared all it has: what it read before and can't be found any more is lost. See `post`."""
        close_vanished(self._registry, self._ending, source, outputs)

    def use_lanes(self, lanes: Sequence[Lane]) -> None:
        """Serve these lanes from now on. In the reader's thread: see `post`."""
        self._lanes = tuple(lanes)
        self._waiting = {lane.name: {} for lane in lanes}
        for tailed in self._registry.all_files():
            self._make_ready(tailed)

    def shed_lanes(self) -> None:
        """Files of targets that are gone wait no longer for outputs that are gone, too. In the reader's thread."""
        for tailed in self._registry.all_files():
            if tailed.ended and tailed.origin.target.id not in self._places.by_id:
                self._registry.shed(tailed, self._lanes)

    def notices(self) -> list[Notice]:
        """What is not read or watched as it should be. In the reader's thread: see `ask`."""
        return [*self._registry.notices(), *self._copies.notices(), *self._places.notices()]

    def prepare(self) -> None:
        """Take up targets and open their files, but read nothing yet. Before `run`, in the same thread."""
        self._take(self._watcher.read(GLANCE_S))
        self._registry.rows.register()

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set (call `wake` after setting it), then cut what is open."""
        while not stop.is_set():
            self.step()
        self._finish_deleted()
        self._flush()

    def finish(self) -> None:
        """After the reader's thread and the senders have ended: take note of the last acks."""
        self._look()
        self._ending.finish()

    def run_once(self, stop: threading.Event) -> None:
        """Read everything that is there now to its end, unfinished last lines too, and wait until it is delivered."""
        goals = {tailed: tailed.size() for tailed in self._registry.all_files()}
        while goals and not stop.is_set():
            self._look()
            busy = False
            if self._registry.rows.register():
                for tailed in list(goals):
                    if self._ending.holds_back(tailed) and tailed.predecessor in goals:
                        continue
                    after = tailed.successor
                    awaited = after is not None and after.predecessor is tailed
                    if self._turn(tailed, final=not awaited) or (awaited and self._ending.hand_over_now(tailed)):
                        busy = True
                    elif not awaited and self._is_done(tailed, goals[tailed]):
                        del goals[tailed]
            self._ending.tend(self.heartbeat_s)
            if not busy:
                self._clock.wait(self._urgent, GLANCE_S)
        self._flush()
        while not stop.is_set() and not all(lane.idle() for lane in self._lanes):
            self._look()
            self._clock.wait(self._urgent, GLANCE_S)

    def _is_done(self, tailed: TailedFile, goal: int | None) -> bool:
        """Whether a file's turn brought nothing because there is nothing more, not because some lane had no room."""
        if tailed.closed or tailed.content is None:
            return True
        if tailed.predecessor is not None:
            return False
        waiting = any(tailed in waiting for waiting in self._waiting.values())
        for waiters in self._waiting.values():
            waiters.pop(tailed, None)
        return not waiting or (goal is not None and tailed.tail >= goal)

    def step(self) -> None:
        """One turn of the loop: wait, look, read a round, do what is due."""
        self._take(self._watcher.read(self._timeout_s()))
        busy = self._round()
        self._due()
        if busy and not self._ready:
            self._pause()

    def _take(self, events: Sequence[Event]) -> None:
        """Let events say which files are ready."""
        self._look()
        if any(event.kind not in WRITES for event in events):
            self._restless_until_s = self.heartbeat_s + RESTLESS_S
        for tailed in self.sightings.apply(events):
            self._make_ready(tailed)

    def _pause(self) -> None:
        """Let writes pile up, with an eye on names."""
        now_s = self._clock.monotonic_s()
        until_s = now_s + PACE_S
        while now_s < until_s:
            glance_s = RESTLESS_GLANCE_S if now_s < self._restless_until_s else GLANCE_S
            if self._clock.wait(self._urgent, glance_s):
                return
            self._take(self._watcher.read(0.0))
            now_s = self.heartbeat_s

    def _look(self) -> None:
        """Show that the thread is alive, and take what other threads have left for it."""
        self.heartbeat_s = self._clock.monotonic_s()
        self._urgent.clear()
        while self._posted:
            action = self._posted.popleft()
            self._note_acks()  # what was acked before something was posted is known to it
            action()
        self._note_acks()

    def _note_acks(self) -> None:
        while self._acked:
            self._note_acked(self._acked.popleft())

    def _note_acked(self, block: Block) -> None:
        for part in block.parts:
            for span in part.ranges:
                tailed = self._registry.rows.by_id.get(span.file)
                if tailed is None:
                    continue
                tailed.note_ack(block.output, span.end, self.heartbeat_s)
                if tailed.origin.policy.drop_page_cache and tailed.content is not None:
                    os.posix_fadvise(tailed.content.fd, 0, tailed.acked_by_all(), os.POSIX_FADV_DONTNEED)

    # -- one round -----------------------------------------------------------------------------------------------

    def _make_ready(self, tailed: TailedFile) -> None:
        if not tailed.queued and not tailed.closed:
            tailed.queued = tailed.unread = True
            self._ready.append(tailed)

    def _admit(self) -> None:
        """Wake one waiting file per lane that has room; its turn may use the room up again."""
        for lane in self._lanes:
            waiting = self._waiting[lane.name]
            if waiting and lane.room():
                tailed = next(iter(waiting))
                del waiting[tailed]
                self._make_ready(tailed)

    def _round(self) -> bool:
        """Give every ready file a turn, again and again, for at most ROUND_S; whether any bytes were consumed."""
        self._admit()
        until_s = self._clock.monotonic_s() + ROUND_S
        busy = False
        unsettled: list[TailedFile] = []
        while self._ready and self._registry.rows.register() and self._clock.monotonic_s() < until_s:
            tailed = self._ready.popleft()
            if not self._registry.is_settled(tailed):
                unsettled.append(tailed)
                continue
            tailed.queued = False
            busy = self._turn(tailed) or busy
            self._admit()
        self._ready.extend(unsettled)
        return busy

    def _turn(self, tailed: TailedFile, *, final: bool = False) -> bool:
        """Read one chunk for each of the file's cursors; queue the file again if there is more."""
        if tailed.closed or tailed.suspended or not tailed.row or self._ending.holds_back(tailed):
            return False
        if not self._registry.ensure_open(tailed) or self._registry.turned_out_stored(tailed):
            return False
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
            for fresh in self._ending.rewritten(tailed):
                self._make_ready(fresh)
            return True
        except OSError as error:
            self._registry.unreadable(tailed, error)
            return busy
        except Exception as error:
            # The chain runs plugins' code on hostile bytes. What it trips over must stop this file only.
            log.exception("%s: unexpected error while processing; the file is no longer read", tailed.path)
            self._registry.suspend(tailed, error)
            return busy
        tailed.unread = more or left
        if busy:
            tailed.merge()
            tailed.grew_at_s = self.heartbeat_s
            if tailed.behind_since_s is None:
                tailed.behind_since_s = self.heartbeat_s
            self._registry.rows.note_growth(tailed)
        if more:
            self._make_ready(tailed)
        return busy

    def _able(self, tailed: TailedFile, cursor: Cursor) -> Cursor | None:
        """The part of the cursor whose lanes have room; the file waits for the others."""
        able = tuple(lane for lane in cursor.lanes if lane.room())
        if len(able) == len(cursor.lanes):
            return cursor
        for lane in cursor.lanes:
            if lane not in able:
                self._waiting.setdefault(lane.name, {})[tailed] = None
        return tailed.split(cursor, able) if able else None

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
                self._pending[tailed] = (size, self.heartbeat_s + wait_s)

    def _patience_s(self, tailed: TailedFile, rest: bytes) -> float | None:
        """How long these unconsumed bytes may wait for more: lines as the chain says, part of one as the source."""
        chain = tailed.origin.chain
        if chain.flush_after_s is not None and chain.whole_lines(rest):
            return chain.flush_after_s
        return tailed.origin.policy.flush_partial_after_s

    # -- what is due ---------------------------------------------------------------------------------------------

    def _timeout_s(self) -> float:
        if self._posted or (self._ready and not self._registry.rows.stalled):
            return 0.0
        now_s = self._clock.monotonic_s()
        wait_s = IDLE_S
        for lane in self._lanes:
            due_s = lane.flush_due(now_s)
            if due_s is not None:
                wait_s = min(wait_s, due_s)
        if self._pending:
            wait_s = min(wait_s, min(due for _, due in self._pending.values()) - now_s)
        wait_s = min(wait_s, self._registry.rows.due_s(now_s))
        return max(0.0, min(wait_s, self._ending.due_s(now_s), self.sightings.due_s(now_s)))

    def _due(self) -> None:
        now_s = self._clock.monotonic_s()
        for lane in self._lanes:
            lane.flush_due(now_s)
        for tailed in [tailed for tailed, (_, due_s) in self._pending.items() if due_s <= now_s]:
            del self._pending[tailed]
            self._flush_rest(tailed)
        self._ending.tend(now_s)
        self._registry.rows.save(now_s)
        for tailed in self.sightings.tend(now_s):
            self._make_ready(tailed)

    def _flush_rest(self, tailed: TailedFile) -> None:
        """The time of an unfinished record is up: deliver its whole lines, and its last part if the source says so."""
        if tailed.closed or tailed.suspended or not self._registry.ensure_open(tailed):
            return
        chain, policy = tailed.origin.chain, tailed.origin.policy
        try:
            for cursor in list(tailed.cursors):
                able = self._able(tailed, cursor)
                if able is None:
                    continue
                fetched = tailed.fetch(able, self._feed.chunk_bytes + chain.reach_bytes)
                if policy.flush_partial_after_s is None:
                    fetched = fetched._replace(data=fetched.data[: chain.whole_lines(fetched.data)])
                self._feed.consume(tailed, able, fetched, final=True)
            tailed.merge()
        except (RewrittenError, OSError):
            pass  # the turn that follows meets it again and knows what to do
        except Exception as error:
            log.exception("%s: unexpected error while processing; the file is no longer read", tailed.path)
            self._registry.suspend(tailed, error)
        self._make_ready(tailed)

    def _flush(self) -> None:
        for lane in self._lanes:
            lane.flush()

    def _finish_deleted(self) -> None:
        """Files that were deleted are gone for good when we let go of them: take the rest of them before the end."""
        until_s = self._clock.monotonic_s() + FAREWELL_S
        self.sightings.apply(self._watcher.read(0.0))
        busy = True
        while busy and self._clock.monotonic_s() < until_s:
            self._look()
            self._registry.rows.register()
            deleted = [tailed for tailed in self._registry.all_files() if tailed.nameless]
            busy = False
            for tailed in deleted:
                busy = self._turn(tailed, final=True) or tailed.unread or busy
            if busy:
                self._admit()
                self._clock.wait(self._urgent, 0.0 if all(lane.room() for lane in self._lanes) else GLANCE_S)
        for tailed in self._registry.all_files():
            if tailed.nameless and not tailed.all_acked():
                for lane in tailed.origin.lanes:
                    lane.spool_now((tailed.row,))
