"""How a file ends: drained after it lost its place, rewritten in place, or continued elsewhere.

A rotated or deleted file is read for as long as somebody writes to it, then its unfinished last record is delivered
and its descriptor given back; its row is closed when everything is acked. A file whose content was replaced goes on as
its next generation, and what was unread is looked for in a copy or written into the ledger.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.model import Loss
from hostagent.state.database.ledger import LossReason
from hostagent.state.rows import FileRow, Position
from hostagent.tail.feed import Feed
from hostagent.tail.files.copies import Copies
from hostagent.tail.files.elsewhere import follow_rest
from hostagent.tail.files.identity import has_writer, identify
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.places import Places
from hostagent.tail.joins import Joins
from hostagent.tail.tailer import PLAIN, TailedFile

TEND_S = 0.25
"""How often files without a place are looked at: nothing tells when their last writer lets go."""


class Ending:
    """Looks after files that have lost their place."""

    def __init__(
        self,
        *,
        registry: Registry,
        places: Places,
        copies: Copies,
        feed: Feed,
        clock: Clock,
        turn: Callable[[TailedFile, bool], bool],
        max_deleted_bytes: int,
    ) -> None:
        self._registry = registry
        self._places = places
        self._copies = copies
        self.joins = Joins(registry, feed, clock)
        self._clock = clock
        self._turn = turn
        self._max_deleted_bytes = max_deleted_bytes
        self._tend_at_s = 0.0
        self._round: deque[TailedFile] = deque()
        self._losses: list[Loss] = []

    def due_s(self, now_s: float) -> float:
        """Seconds until `tend` has something to do."""
        if self._round:
            return 0.0
        if self._registry.ended or self._registry.followed or self._losses or self._registry.files.idle.any_over:
            return self._tend_at_s - now_s
        return float("inf")

    def tend(self, now_s: float, names_wait: Callable[[], bool]) -> None:
        """Drain files without a place a bit further; retire those that are done.

        Once `names_wait` says that the watcher has heard of names, the other files wait until those were taken.
        """
        if not self._round:
            if now_s < self._tend_at_s:
                return
            self._tend_at_s = now_s + TEND_S
            self._save_losses()
            self._note_late()
            for tailed in [tailed for tailed in self._registry.followed if tailed.ended]:
                del self._registry.followed[tailed]
            if self._registry.rows.register():  # else nothing can be read, as in any round
                self._round.extend([*self._registry.ended, *self._registry.followed])
        while self._round:
            tailed = self._round.popleft()
            if tailed in self._registry.ended:
                self._tend_ended(tailed, now_s)
            elif tailed in self._registry.followed:
                self._tend_followed(tailed, now_s)
            if self._round and names_wait():
                return
        self._keep_within_budget()

    def _tend_ended(self, tailed: TailedFile, now_s: float) -> None:
        if tailed.drained:
            if tailed.all_acked():
                self._retire(tailed)
            return
        at_end = not self.joins.holds_back(tailed) and not self._turn(tailed, False) and not tailed.queued
        if at_end or (tailed.drop_size is not None and tailed.tail >= tailed.drop_size):
            self._drain(tailed, now_s)

    def _tend_followed(self, tailed: TailedFile, now_s: float) -> None:
        if not self.joins.holds_back(tailed) and not self._turn(tailed, False) and not tailed.queued:
            self._hand_over(tailed, now_s)

    def _keep_within_budget(self) -> None:
        """Deleted files that are held open take disk nobody else can free: give up the oldest past the budget."""
        held: dict[TailedFile, int] = {}
        for tailed in self._registry.ended:
            if tailed.drained or tailed.content is None or tailed.storage != PLAIN:
                continue
            status = identify(tailed.content.fd)
            if status.nlink == 0:
                held[tailed] = status.size
        over_bytes = sum(size - tailed.acked_by_all() for tailed, size in held.items()) - self._max_deleted_bytes
        for tailed, size in held.items():
            if over_bytes <= 0:
                return
            over_bytes -= size - tailed.acked_by_all()
            assert tailed.content is not None
            if has_writer(tailed.content.fd) is not False:
                self._note_loss(tailed, LossReason.DELETED_OVER_BUDGET, size)  # what will still be written to it
            self._give_up(tailed, LossReason.DELETED_OVER_BUDGET, end=size)

    def _drain(self, tailed: TailedFile, now_s: float) -> None:
        """The file has been read to its end: if nobody will write to it any more, deliver its last record and close."""
        if tailed.closed or (tailed.suspended and tailed.drop_size is None):
            return
        if tailed.content is None:
            self._abandon(tailed, now_s)
            return
        if tailed.drop_size is not None and identify(tailed.content.fd).nlink:
            self._let_go(tailed)
            return
        if not self._is_over(tailed, now_s):
            return
        successor = self._successor(tailed, now_s)
        if successor is not None and not self._registry.is_settled(successor):
            return
        patience_s = tailed.origin.policy.close_grace_s - (now_s - (tailed.ended_at_s or 0.0))
        if successor is not None and successor.row and not self.joins.join(tailed, successor) and patience_s > 0:
            return
        if self._turn(tailed, True) or tailed.queued or tailed.unread:
            return
        assert tailed.content is not None
        lanes = [] if tailed.all_acked() else tailed.origin.lanes
        if identify(tailed.content.fd).nlink == 0:
            # Nobody could read these bytes again after a crash: they don't wait for the backend.
            safe = [lane.spool_now((tailed.row,)) for lane in lanes]
            if not all(safe):
                return
        if not getattr(tailed.content, "complete", True):
            self._give_up(tailed, LossReason.COPY_DAMAGED)
        tailed.drained = True
        self._registry.files.release(tailed)
        # Whoever waited for this end gets no event for it, and may be a file that nobody writes to any more.
        if successor is not None:
            self._turn(successor, False)

    def _let_go(self, tailed: TailedFile) -> None:
        """No target wants the file any more. Its last record is delivered if nobody writes on, and left in it else."""
        assert tailed.content is not None
        if not all(lane.room() for lane in tailed.origin.lanes):
            return
        if has_writer(tailed.content.fd) is not False or not self._turn(tailed, True):
            tailed.drained = True
            self._registry.files.release(tailed)

    def _hand_over(self, tailed: TailedFile, now_s: float) -> None:
        """A file that was moved aside has been read to its end: its last record may end in the one after it."""
        successor = self._successor(tailed, now_s)
        if tailed.suspended or tailed.content is None or successor is None or not self._is_over(tailed, now_s):
            return
        if not self._registry.is_settled(successor):
            return
        patience_s = tailed.origin.policy.close_grace_s - (now_s - self._registry.followed[tailed])
        if patience_s > 0 and not (successor.row and self.joins.join(tailed, successor)):
            return
        if self._turn(tailed, True) or tailed.queued or tailed.unread:
            return
        del self._registry.followed[tailed]
        self._turn(successor, False)

    def _successor(self, tailed: TailedFile, now_s: float) -> TailedFile | None:
        """The file in which the last record may go on: none that was rotated away empty, but what came after that."""
        while (empty := tailed.successor) is not None and (after := empty.successor) is not None:
            if empty.content is None or empty.head or empty.size() != 0 or not self._is_over(empty, now_s):
                break
            empty.predecessor = empty.successor = None
            self._registry.followed.pop(empty, None)
            after.follow(tailed)
        return tailed.successor

    def hand_over_now(self, tailed: TailedFile) -> bool:
        """What the files hold is all there will be: join a file's end with its successor's beginning without patience.

        False while an output has no room for it.
        """
        successor = tailed.successor
        if successor is None or not all(lane.room() for lane in tailed.origin.lanes):
            return False
        self.joins.join(tailed, successor)
        successor.predecessor = None
        return True

    def _abandon(self, tailed: TailedFile, now_s: float) -> None:
        """The file is not behind its path, and its descriptor was closed: it was deleted, or moved a moment ago.

        It is looked for before it is given up, and not at once: the event that tells its new name may not have been
        read yet. If all of it was read, and the kernel knows of no write since, nothing of it is missing; should
        somebody still write to it, that is heard, and lost.
        """
        if tailed.path in self._registry.refused:
            return  # it is there and can't be read now: neither deleted nor lost
        if now_s - (tailed.ended_at_s or 0.0) < TEND_S or follow_rest(self._registry, tailed):
            return
        if not self._registry.files.idle.is_quiet(tailed):
            self._give_up(tailed, LossReason.DELETED)
            return
        # As of any deleted file that was read: nobody could read these bytes again after a crash.
        safe = [lane.spool_now((tailed.row,)) for lane in ([] if tailed.all_acked() else tailed.origin.lanes)]
        if all(safe):
            tailed.drained = True
            self._registry.files.idle.outlive(tailed)

    def _note_late(self) -> None:
        """Files that were done were written to once more, where nobody can read it."""
        for tailed in self._registry.files.idle.take_late():
            self._note_loss(tailed, LossReason.DELETED, tailed.head)

    def _is_over(self, tailed: TailedFile, now_s: float) -> bool:
        assert tailed.content is not None
        writer = has_writer(tailed.content.fd)
        if writer is None:
            quiet_s = now_s - max(tailed.grew_at_s, tailed.ended_at_s or 0.0)
            return quiet_s >= tailed.origin.policy.close_grace_s
        return not writer

    def _retire(self, tailed: TailedFile) -> None:
        try:
            self._registry.retire(tailed)
        except StateError:
            return

    def finish(self) -> None:
        """At the end of the agent, when the last acks are in: close the rows of files that have nothing more to give.

        Else the next start looks for deleted files in vain and must call a loss what was delivered to the last byte.
        """
        self._note_late()
        for tailed in list(self._registry.ended):
            if not tailed.drained and tailed.content is not None and not tailed.suspended:
                # One that is there may be where the next start doesn't look: behind what was a link, or another name.
                over = tailed.drop_size is None and has_writer(tailed.content.fd) is False
                tailed.drained = over and tailed.size() == tailed.tail
            elif not tailed.drained and self._registry.files.idle.is_dead(tailed):
                tailed.drained = True
            if tailed.drained and tailed.all_acked():
                self._retire(tailed)
        self._registry.rows.save(float("inf"))

    # -- rewritten in place --------------------------------------------------------------------------------------

    def rewritten(self, tailed: TailedFile, reached: Position | None = None) -> list[TailedFile]:
        """The content before the position is gone: begin the next generation, and look for the old one elsewhere.

        It was read as far as `reached` once, if that is known to be further.
        """
        if tailed.is_copy:
            # A copy that is copied over again holds what its original's own generations deliver.
            self._give_up(tailed, LossReason.CHANGED)
            return []
        fresh = self._registry.succeed(tailed)
        if tailed.ended:
            self._registry.lose(fresh)
        if not follow_rest(self._registry, tailed, reached):
            self._give_up(tailed, LossReason.TRUNCATED)
            return [fresh]
        self._copies.gone(tailed.path)
        place = self._places.by_id.get(tailed.origin.target.id)
        if place is None or tailed.storage != PLAIN or not place.wants(tailed.path):
            self._registry.lose(tailed)  # else it has its place under the copy's name, and a scan must find it known
        self.note_gap(tailed)
        return [fresh, tailed]

    def note_gap(self, copy: TailedFile) -> None:
        """A file goes on in its copy: what was written between the copy and the truncate is in neither."""
        self._note_loss(copy, LossReason.COPYTRUNCATE, copy.size() or copy.head)

    def _give_up(self, tailed: TailedFile, reason: LossReason, end: int | None = None) -> None:
        """Nothing more can be read of this generation: ledger it, and close its row when what was read is acked."""
        for cursor in tailed.cursors:
            # One line for all outputs where they stand together.
            outputs = [lane.name for lane in cursor.lanes] if len(tailed.cursors) > 1 else [""]
            for output in outputs:
                if end is None or end > cursor.offset:
                    self._note_loss(tailed, reason, cursor.offset, output, end)
        self._registry.lose(tailed)
        tailed.drained = True
        self._registry.files.release(tailed)

    def _note_loss(
        self, tailed: TailedFile, reason: LossReason, start: int, output: str = "", end: int | None = None
    ) -> None:
        self._losses.append(
            Loss(
                source=tailed.origin.target.source,
                path=tailed.recorded_path,
                file=tailed.row,
                start=start,
                end=end,
                reason=reason,
                at_ns=self._clock.wall_ns(),
                output=output,
            )
        )
        self._save_losses()

    def _save_losses(self) -> None:
        if self._losses:
            try:
                self._registry.checkpoint.add_losses(self._losses)
            except StateError:
                return
            self._losses.clear()

    def note_vanished(self, rows: Iterable[FileRow], outputs: Sequence[str], reason: LossReason) -> None:
        """Files that were known and can't be found again: what of them was unread is lost, nobody knows how much."""
        at_ns = self._clock.wall_ns()
        for row in rows:
            starts = {output: row.positions[output].offset if output in row.positions else 0 for output in outputs}
            if len(set(starts.values())) == 1:
                starts = {"": next(iter(starts.values()))}
            self._losses += [
                Loss(row.source, row.path, row.id, start, None, reason, at_ns, output)
                for output, start in starts.items()
            ]
        self._save_losses()
