"""The reader: one thread that takes bytes from files to blocks.

It waits for the watcher, lets `sightings` say which files changed, gives them their `turns`, a chunk each, round and
round, so that a flood in one file delays no other, and does what is due. The reader's thread owns every TailedFile;
other threads reach it through `post`.
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
from hostagent.tail.feed import Feed
from hostagent.tail.files.copies import Copies
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.places import Place, Places
from hostagent.tail.finding.sightings import Sightings
from hostagent.tail.missed import Missed
from hostagent.tail.ports import Lane
from hostagent.tail.recut import Reclaiming
from hostagent.tail.resume import close_vanished, drop_target, open_target, swap_target
from hostagent.tail.tailer import TailedFile
from hostagent.tail.turns import Turns
from hostagent.tail.watching.watcher import Event, Watcher

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PACE_S = 0.1
"""Pause after files that are being written right now were read to their end: writes pile up into one read, whose price
hardly depends on its size below a chunk. Names end it: a file that is there for a moment must be opened in it."""

LONG_PACE_S = 0.2
"""The same after a round that brought plenty, unless names come: what runs after a pause takes longer than in a loop
(docs/performance.md), so fewer rounds are cheaper. A line waits less here than one of a quiet file, whose block must
become due."""

GLANCE_S = 0.05
"""How often a run that ends by itself looks around when there is nothing to read."""

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
        reclaiming: Reclaiming,
    ) -> None:
        copies = Copies(registry, clock)
        self.sightings = Sightings(registry, places, copies, clock, rescan_interval_s)
        self._registry = registry
        self._places = places
        self._copies = copies
        self._watcher = watcher
        self._lanes = tuple(lanes)
        self._clock = clock
        self._reclaiming = reclaiming
        self._missed = Missed(registry.checkpoint, clock)
        self._posted: deque[Callable[[], None]] = deque()
        self._urgent = threading.Event()
        self._acked: deque[Block] = deque()
        self._turns = Turns(
            registry=registry,
            places=places,
            copies=copies,
            feed=feed,
            lanes=lanes,
            clock=clock,
            max_deleted_bytes=max_deleted_bytes,
            room=reclaiming.room,
        )
        self._ending = self._turns.ending
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
            except Exception as error:  # raised again in the asker's thread, which may be any; the reader goes on
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
            ready = open_target(self._registry, self._places, self._ending, self._copies, place)
        for tailed in ready:
            self._turns.make_ready(tailed)

    def drop_target(self, target_id: str) -> None:
        """A target is gone: drain its files, then close them. In the reader's thread: see `post`."""
        self._missed.note(drop_target(self._registry, self._places, target_id))

    def close_vanished(self, source: str, outputs: Sequence[str]) -> None:
        """A source has declared all it has: what it read before and can't be found any more is lost. See `post`."""
        close_vanished(self._registry, self._ending, source, outputs)

    def use_lanes(self, lanes: Sequence[Lane]) -> None:
        """Serve these lanes from now on. In the reader's thread: see `post`."""
        self._lanes = tuple(lanes)
        self._turns.use_lanes(lanes)
        for tailed in self._registry.all_files():
            self._turns.make_ready(tailed)

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

    def resume(self, stop: threading.Event) -> None:
        """Cut again what was in flight when the last run ended. After `prepare`, before `run`, in the same thread."""
        self._reclaiming.resume(self._lanes, self._turns.look, stop)

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
        self._copies.clear_all()
        goals = {tailed: tailed.size() for tailed in self._registry.all_files()}
        while goals and not stop.is_set():
            self._look()
            self._reclaiming.take(self._lanes, self._turns.look)
            busy = False
            if self._registry.rows.register():
                for tailed in list(goals):
                    if self._ending.joins.holds_back(tailed) and tailed.predecessor in goals:
                        continue
                    after = tailed.successor
                    awaited = after is not None and after.predecessor is tailed
                    if self._turns.turn(tailed, final=not awaited) or (awaited and self._ending.hand_over_now(tailed)):
                        busy = True
                    elif not awaited and self._is_done(tailed, goals[tailed]):
                        del goals[tailed]
            self._ending.tend(self.heartbeat_s, self._watcher.has_names)
            if not busy:
                self._clock.wait(self._urgent, GLANCE_S)
        self._flush()
        while not stop.is_set() and not self._all_idle():
            self._look()
            self._reclaiming.take(self._lanes, self._turns.look)
            self._clock.wait(self._urgent, GLANCE_S)

    def _all_idle(self) -> bool:
        return all(lane.idle() for lane in self._lanes) and not self._reclaiming.pending(self._lanes)

    def _is_done(self, tailed: TailedFile, goal: int | None) -> bool:
        """Whether a file's turn brought nothing because there is nothing more, not because some lane had no room."""
        if tailed.closed or tailed.content is None:
            return True
        if tailed.predecessor is not None:
            return False
        return not self._turns.stop_waiting(tailed) or (goal is not None and tailed.tail >= goal)

    def step(self) -> None:
        """One turn of the loop: wait, look, read a round, do what is due."""
        self._take(self._watcher.read(self._timeout_s()))
        # Where an added output begins must be known after a crash, too, and its files may not be read for a long time.
        self._registry.rows.register()
        self._reclaiming.take(self._lanes, self._turns.look)
        busy = self._turns.round(self._watcher.has_names)
        self._due()
        if busy and not self._turns.any_ready:
            self._pause()

    def _take(self, events: Sequence[Event]) -> None:
        """Let events say which files are ready."""
        self._look()
        for tailed in self.sightings.apply(events):
            self._turns.make_ready(tailed)
        self._missed.note(self.sightings.unseen.take())

    def _pause(self) -> None:
        """Let writes pile up, but take names as they come."""
        begun_s = self._clock.monotonic_s()
        until_s = begun_s + (LONG_PACE_S if self._turns.plenty else PACE_S)
        urgent = False
        while not urgent and (left_s := until_s - self._clock.monotonic_s()) > 0:
            events = self._watcher.read_names(left_s)
            urgent = self._urgent.is_set()
            self._take(events)
            if events:
                until_s = min(until_s, begun_s + PACE_S)
        # A lane that has room again has said so once, and that is what may have ended the pause.
        self._turns.admit()

    def _look(self) -> None:
        """Show that the thread is alive, and take what other threads have left for it."""
        self.heartbeat_s = self._turns.now_s = self._clock.monotonic_s()
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

    # -- what is due ---------------------------------------------------------------------------------------------

    def _timeout_s(self) -> float:
        if self._posted or (self._turns.any_ready and not self._registry.rows.stalled):
            return 0.0
        now_s = self._clock.monotonic_s()
        wait_s = IDLE_S
        for lane in self._lanes:
            due_s = lane.flush_due(now_s)
            if due_s is not None:
                wait_s = min(wait_s, due_s)
        wait_s = min(wait_s, self._turns.due_s(now_s), self._registry.rows.due_s(now_s))
        wait_s = min(wait_s, self._reclaiming.due_s(self._lanes, now_s))
        return max(0.0, min(wait_s, self._ending.due_s(now_s), self.sightings.due_s(now_s)))

    def _due(self) -> None:
        now_s = self._clock.monotonic_s()
        for lane in self._lanes:
            lane.flush_due(now_s)
        self._turns.flush_due(now_s)
        self._ending.tend(now_s, self._watcher.has_names)
        self._registry.rows.save(now_s)
        self._missed.save()
        for tailed in self.sightings.tend(now_s):
            self._turns.make_ready(tailed)

    def _flush(self) -> None:
        for lane in self._lanes:
            lane.flush()

    def _finish_deleted(self) -> None:
        """Files that were deleted are gone for good when we let go of them: take the rest of them before the end."""
        until_s = self._clock.monotonic_s() + FAREWELL_S
        self._reclaiming.let_all_in()
        self._take(self._watcher.read(0.0))
        self._missed.save()
        busy = True
        while busy and self._clock.monotonic_s() < until_s:
            self._look()
            self._registry.rows.register()
            deleted = [tailed for tailed in self._registry.all_files() if tailed.nameless]
            busy = False
            for tailed in deleted:
                busy = self._turns.turn(tailed, final=True) or tailed.unread or busy
            if busy:
                self._turns.admit()
                self._clock.wait(self._urgent, 0.0 if all(lane.room() for lane in self._lanes) else GLANCE_S)
        for tailed in self._registry.all_files():
            if tailed.nameless and not tailed.all_acked():
                for lane in tailed.origin.lanes:
                    lane.spool_now((tailed.row,))
