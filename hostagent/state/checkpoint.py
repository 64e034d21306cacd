"""The checkpoint: what has been delivered, what is on its way, and what was lost, in one SQLite database.

Tail asks it at start where to go on, deliver tells it about blocks begun and acknowledged. A position is committed
after its bytes were acknowledged or fsynced into the spool, never before. When the disk refuses, nothing held in memory
is given up: the caller repeats the same call until it succeeds. Here stands what makes up a transaction; the statements
are in `database`, table by table, and the connection with its faults is `database.live`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.model import Block, Delivery, Loss
from hostagent.state.database import divided, files, inflight, kinship, ledger, listing, positions, reclaims, totals
from hostagent.state.database.kinship import Kinship
from hostagent.state.database.ledger import LossReason, LossTotal
from hostagent.state.database.listing import SpoolChange
from hostagent.state.database.live import LiveDatabase
from hostagent.state.database.reclaims import Reclaim
from hostagent.state.lock import DirectoryLock
from hostagent.state.rows import FileRow, InflightBlock, Position
from hostagent.state.spool.spooled import Place, SpoolHeader, losses_in, merge

__all__ = ["Checkpoint", "FileRow", "InflightBlock", "LossTotal", "Position", "Reclaim", "SpoolChange"]

T = TypeVar("T")

LOSSES_KEPT = 100_000


class Checkpoint:
    """What is asked of the database and written into it. Thread-safe; whatever touches it may raise StateError."""

    def __init__(self, data_dir: Path, clock: Clock, lock: DirectoryLock) -> None:
        """Open the database of a directory that is already locked; use `open`."""
        self.data_dir = data_dir
        self._clock = clock
        self._directory_lock = lock
        self._database = LiveDatabase(data_dir, clock)
        self.epoch = self._database.epoch
        self.on_urgent: Callable[[], None] = _nothing
        """Called when `look` should not be put off: it makes durable what can't be found out from files any more."""
        self._next_file = self._database.first_file
        self._reclaiming = self._database.read(reclaims.outputs)
        self._divided = self._database.read(divided.load)

    @classmethod
    def open(cls, data_dir: Path, clock: Clock) -> Checkpoint:
        """Lock the data directory, heal or make its database; StateError when that can't be done now."""
        try:
            data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"data_dir {data_dir}: can't make the directory ({error.strerror}): make it, or name another"
            ) from error
        lock = DirectoryLock.acquire(data_dir)
        try:
            return cls(data_dir, clock, lock)
        except BaseException:
            lock.close()
            raise

    # -- the disk ------------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """False from a failed write until the next one that works."""
        return self._database.healthy

    @property
    def damaged(self) -> bool:
        """The database broke or was taken away while in use; only a restart of the agent heals that."""
        return self._database.damaged

    @property
    def commits(self) -> int:
        """How many transactions there were since the start."""
        return self._database.commits

    @property
    def commit_failures(self) -> int:
        """How many the disk has refused."""
        return self._database.commit_failures

    def notices(self) -> list[Notice]:
        """What happened at start, and what is the matter now."""
        return self._database.notices()

    def look(self) -> None:
        """Call often: makes what was committed durable, and notices a database that was removed or replaced."""
        self._database.look()
        self._database.sync()

    def maintain(self) -> None:
        """Call now and then, from any thread: tries a failed disk again, keeps the ledger short, makes a backup."""
        self._database.look()
        self._database.tidy(lambda connection: ledger.fold(connection, LOSSES_KEPT))
        self._forget_divided()
        self._database.back_up()

    def close(self) -> None:
        """Close the database and let another agent have the directory."""
        self._database.close()
        self._directory_lock.close()

    # -- files and how far they are done -----------------------------------------------------------------------

    def files(self) -> list[FileRow]:
        """Every file generation with its positions, by id. The rows share equal strings and tags."""
        return self._database.read(files.load)

    def file(self, id_: int) -> FileRow | None:
        """One file generation with its positions; None if it is forgotten."""
        return self._database.read(lambda connection: files.one(connection, id_))

    def add_files(self, rows: Sequence[FileRow]) -> list[int]:
        """Store new file generations with their positions; returns their ids, in order."""
        if not rows:
            return []
        with self._database.lock:
            first = self._next_file
            ids = list(range(first, first + len(rows)))
            self._database.write(lambda connection: files.insert(connection, ids, rows))
            self._next_file = first + len(rows)
        return ids

    def note_file_lost(self) -> None:
        """A file has lost its place and may be deleted. What was delivered of it is to outlive a power cut, too.

        As long as a file is there, a position that steps back costs nothing but that lines come again.
        """
        self.on_urgent()

    def update_files(self, rows: Iterable[FileRow]) -> None:
        """Store what is known about files now; positions are left alone."""
        values = list(rows)
        self._database.write(lambda connection: files.update(connection, values))

    def set_positions(self, starts: Iterable[positions.Start], dropped: Iterable[tuple[int, str]] = ()) -> None:
        """Put (file, output, offset, anchor) as given, forward or back; `dropped` (file, output) get no more."""
        values, gone = list(starts), list(dropped)

        def work(connection: sqlite3.Connection) -> None:
            positions.put(connection, values)
            positions.release(connection, gone)

        self._database.write(work)

    def forget_files(self, older_than_ns: int) -> int:
        """Forget files that are gone since before then and that no in-flight block names; returns how many.

        Their bytes stay in the totals.
        """

        def work(connection: sqlite3.Connection) -> int:
            if gone := files.gone_before(connection, older_than_ns):
                gone -= reclaims.files_named(connection)
            totals.forget(connection, gone)
            return len(gone)

        return self._database.write(work)

    # -- blocks on their way -----------------------------------------------------------------------------------

    def commit(self, begun: Sequence[Block], acked: Sequence[Block], spool: SpoolChange | None = None) -> None:
        """One transaction: blocks about to be sent become in-flight, acknowledged ones move positions and are gone.

        `acked` are blocks that were delivered, and those that a spool has made durable: `spool` says where these lie.
        It may also name blocks that the spool has lost again meanwhile. Their positions move, too, and they are to be
        reclaimed.
        """
        reached = positions.reached_by(acked)
        ids = [block.id for block in acked]

        def work(connection: sqlite3.Connection) -> None:
            if begun:
                inflight.begin(connection, begun)
            if ids:
                positions.advance(connection, reached)
                inflight.end(connection, ids)
            if spool is not None:
                ledger.add(connection, listing.change(connection, spool, self._clock.wall_ns()))

        if spool is not None and spool.gone:
            self._write_reclaims(spool.output, work)
        else:
            self._database.write(work)

    def inflight(self, output: str) -> list[InflightBlock]:
        """Blocks of an output that were begun and never acknowledged, in the order they were cut."""
        return self._database.read(lambda connection: inflight.load(connection, output))

    def furthest_in_flight(self) -> dict[int, Position]:
        """Of each file in any of those blocks, the furthest end that they have of it."""
        return self._database.read(inflight.furthest)

    def drop_inflight(self, output: str) -> None:
        """Forget the blocks of an output in flight: what they cover is read as if it had never been read.

        A block that lies before the output's position was in its spool once, and nobody would read it again: it is to
        be reclaimed.
        """

        def work(connection: sqlite3.Connection) -> None:
            reclaims.add_passed(connection, output)
            inflight.forget(connection, output)

        self._write_reclaims(output, work)

    def narrow_inflight(self, blocks: Iterable[InflightBlock], losses: Sequence[Loss]) -> None:
        """Take out of blocks what can't be cut again, before the rest is sent under their ids.

        Such a part keeps its number of records and has no ranges, or a file that comes back would be taken for sent.
        A block without any ranges is forgotten. What of the losses lies behind the positions is none: it is read anew.
        """
        values = list(blocks)

        def work(connection: sqlite3.Connection) -> None:
            inflight.replace(connection, values)
            ledger.add_done(connection, losses)

        self._database.write(work)

    def was_divided(self, delivery: Delivery) -> bool:
        """Whether a backend found this delivery too large, in this run or an earlier one; asks no disk."""
        return delivery.id in self._divided

    def note_divided(self, output: str, delivery: Delivery) -> None:
        """A backend found a delivery too large; until its block is acked its halves are to be sent instead."""
        with self._database.lock:
            self._database.write(lambda connection: divided.add(connection, delivery.id, delivery.block, output))
            self._divided.add(delivery.id)

    def _forget_divided(self) -> None:
        with self._database.lock:
            if self._divided:
                self._database.tidy(divided.forget)
                self._divided = self._database.read(divided.load)

    # -- blocks in a spool, and those it has lost --------------------------------------------------------------

    def kinship(self, output: str, runs: Sequence[str], known: Place) -> Kinship:
        """Whether a spool that lived through these runs, and knows of places up to there, is the one known here."""
        return self._database.read(lambda connection: kinship.judge(connection, output, runs, known))

    def reconcile_spool(
        self,
        output: str,
        held: Iterable[tuple[Place, SpoolHeader]],
        drained: tuple[Place, Place],
        kin: Kinship = Kinship.SAME,
        run: str = "",
    ) -> list[Place]:
        """At start: what a spool holds need not be read again; what it should hold and does not is to be reclaimed.

        `held` are the blocks that wait in it, in order. Between the two places of `drained` all was delivered. The
        spool has been told that this `run` uses it. Returns the places of the blocks that are missing.
        """

        def work(connection: sqlite3.Connection) -> list[Place]:
            if run:
                kinship.note_run(connection, output, run)
            lost, places = listing.reconcile(connection, output, held, drained, kin=kin, at_ns=self._clock.wall_ns())
            ledger.add_done(connection, lost)
            return places

        return self._write_reclaims(output, work)

    def lose_spooled(self, output: str, where: tuple[Place, Place], reason: LossReason) -> list[Place]:
        """A spool has lost the blocks between two places, or drops them; returns the places that were known.

        What it drops goes into the ledger, the rest is to be reclaimed.
        """

        def work(connection: sqlite3.Connection) -> list[Place]:
            lost, places = listing.lose(connection, output, where, reason, self._clock.wall_ns())
            ledger.add_done(connection, lost)
            return places

        return self._write_reclaims(output, work)

    def note_drained(self, output: str, head: Place) -> None:
        """Everything before the head of a spool is done, and the files it lay in are about to go."""
        self._database.write(lambda connection: listing.forget_drained(connection, output, head))

    def listed_up_to(self, output: str) -> Mapping[int, int]:
        """For each segment of a spool, the offset before which every block had a row here, whatever became of it."""
        return self._database.read(lambda connection: listing.listed_up_to(connection, output))

    def note_listed(self, output: str, ends: Mapping[int, int]) -> None:
        """Up to these places in segments of a spool every block has its row here, or an entry in the ledger."""
        self._database.write(lambda connection: listing.note_listed(connection, output, ends))

    def lose_unlisted(self, output: str, headers: Sequence[SpoolHeader], reason: LossReason) -> None:
        """A spool has lost blocks that never had a row here; only their own headers tell what they were.

        Their bytes of a file that the database knows are not lost: before the position they were delivered, or there
        would be a row; behind it they are read from the file. They are lost if nobody knows the file any more, or if
        they are dropped on purpose.
        """
        now_ns = self._clock.wall_ns()
        dropped = reason is LossReason.SPOOL_DROPPED
        lost = merge([loss for header in headers for loss in losses_in(header.parts, output, reason, now_ns)])

        def work(connection: sqlite3.Connection) -> None:
            known = positions.of_files(connection, output, {loss.file for loss in lost})
            ledger.add(connection, [loss for loss in lost if dropped or loss.file not in known])

        self._database.write(work)

    @property
    def reclaiming(self) -> Collection[str]:
        """The outputs whose spools have lost blocks that are not taken back yet; asks no disk."""
        return self._reclaiming

    def reclaims(self, output: str, limit: int) -> list[Reclaim]:
        """The oldest blocks that an output's spool has lost, to be cut again from their files."""
        return self._database.read(lambda connection: reclaims.oldest(connection, output, limit))

    def end_reclaim(self, reclaim: Reclaim, losses: Sequence[Loss]) -> None:
        """What could be cut of such a block is in flight now; the rest goes into the ledger."""

        def work(connection: sqlite3.Connection) -> None:
            reclaims.end(connection, reclaim)
            ledger.add_done(connection, losses)

        self._write_reclaims(reclaim.block.output, work)

    def _write_reclaims(self, output: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """Write what may change whether an output has blocks to be reclaimed."""

        def both(connection: sqlite3.Connection) -> tuple[T, bool]:
            return work(connection), reclaims.waits(connection, output)

        with self._database.lock:
            result, waits = self._database.write(both)
            others = self._reclaiming - {output}
            self._reclaiming = others | {output} if waits else others
        return result

    # -- what will not be delivered ----------------------------------------------------------------------------

    def add_losses(self, losses: Sequence[Loss]) -> None:
        """Write losses into the ledger; an empty path is looked up by the file's id.

        What was damaged in the spool is lost only as far as the output's position says its bytes were done: what lies
        behind the position is still in its file and will be read again.
        """
        self._database.write(lambda connection: ledger.add_done(connection, losses))

    def losses(self, source: str | None = None, limit: int = 1000) -> list[Loss]:
        """The newest losses, oldest first."""
        return self._database.read(lambda connection: ledger.select(connection, source, limit))

    def loss_totals(self) -> list[LossTotal]:
        """Losses per source, output and reason."""
        return self._database.read(ledger.totals)


def _nothing() -> None:
    """Nobody looks after the disk here: a test, a command."""
