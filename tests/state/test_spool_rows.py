"""The database knows which bytes a spool should hold: whatever becomes of its files, what is gone has a name.

What it is named for is to be cut again from the log files; here no reader does that.
"""

import contextlib
import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from hostagent.model import Block, Loss
from hostagent.state.books import read_books
from hostagent.state.checkpoint import Checkpoint, Reclaim, SpoolChange
from hostagent.state.database import reclaims
from hostagent.state.database.ledger import LossReason
from hostagent.state.spool.spool import Spool
from hostagent.state.spool.spooled import Place
from tests.state.values import HandClock, block, delivery, file_row, header_of, offsets, part, spool_config

MIB = 1024 * 1024


class Pair:
    """A checkpoint and a spool in one directory."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder = folder
        self.options = options
        self.open()
        self.checkpoint.add_files([file_row()])

    def open(self) -> None:
        self.untold: list[tuple[Place, Block]] = []
        self.checkpoint = Checkpoint.open(self.folder, HandClock())
        self.spool = Spool.open(self.folder, "main", spool_config(**self.options), HandClock(), self.checkpoint)

    def close(self) -> None:
        self.spool.close()
        self.checkpoint.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    def put(self, *numbers: int, bytes_: int = 1000) -> None:
        """Spool and commit blocks of ten bytes each; block n covers [10 n, 10 n + 10)."""
        added = []
        for number in numbers:
            one = block(f"b{number}", part(1, number * 10, number * 10 + 10))
            place = self.spool.append(one, delivery(one.id, os.urandom(bytes_)))
            assert place is not None
            added.append((place, one))
        self.spool.sync()
        self.commit(added)

    def commit(self, added: Sequence[tuple[Place, Block]] = (), acked: Sequence[Block] | None = None) -> None:
        head = self.spool.place
        assert head is not None
        blocks = [one for _, one in added] if acked is None else acked
        gone = [one for place, one in self.untold if self.spool.gave_up(place)]
        self.checkpoint.commit([], blocks, SpoolChange("main", added, head, self.spool.end, gone))
        self.untold.clear()

    def drain(self, count: int) -> list[str]:
        ids = []
        for _ in range(count):
            head = self.spool.head()
            if head is None:
                break
            ids.append(head.id)
            self.spool.advance()
        return ids

    def rows(self) -> list[int]:
        """The first byte of each block the database believes to be in the spool."""
        return [held.parts[0].ranges[0].start for held in read_books(self.folder).spooled]

    def missed(self) -> list[tuple[int, int, str]]:
        """What is to be reclaimed, ranges that touch as one."""
        joined: list[tuple[int, int, str]] = []
        for reclaim in self.checkpoint.reclaims("main", 10_000):
            ((range_,),) = (one.ranges for one in reclaim.block.parts)
            start = joined.pop()[0] if joined and joined[-1][1:] == (range_.start, reclaim.reason) else range_.start
            joined.append((start, range_.end, reclaim.reason))
        return joined

    def lost(self) -> list[tuple[int, int | None, str]]:
        return [(loss.start, loss.end, loss.reason) for loss in self.checkpoint.losses()]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def remove_all(directory: Path) -> None:
    shutil.rmtree(directory)


def empty_all(directory: Path) -> None:
    for path in directory.iterdir():
        os.truncate(path, 0)


def halve_all(directory: Path) -> None:
    for path in directory.iterdir():
        os.truncate(path, path.stat().st_size // 2)


def overwrite_all(directory: Path) -> None:
    for path in directory.iterdir():
        path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("ruin", [remove_all, empty_all, overwrite_all])
def test_of_a_spool_of_which_nothing_is_left_every_block_is_known(pair: Pair, ruin: Callable[[Path], None]) -> None:
    pair.put(0, 1, 2)
    pair.put(3, 4)
    assert pair.drain(2) == ["b0", "b1"]
    pair.commit()
    pair.close()
    ruin(pair.spool.directory)
    pair.open()
    assert pair.drain(9) == []
    assert pair.missed() == [(20, 50, "spool_missing")]
    assert pair.rows() == []
    assert any("3 spooled blocks" in notice.message for notice in pair.spool.notices())
    pair.reopen()
    assert pair.missed() == [(20, 50, "spool_missing")]
    assert [reclaim.block.id for reclaim in pair.checkpoint.reclaims("main", 2)] == ["b2", "b3"]
    assert pair.lost() == []
    pair.close()


def test_what_a_removed_segment_held_is_known_to_be_done_even_if_the_mark_is_lost(tmp_path: Path) -> None:
    pair = Pair(tmp_path, max_bytes=8 * MIB)
    for number in range(6):
        pair.put(number, bytes_=MIB // 2)
    assert pair.drain(4) == ["b0", "b1", "b2", "b3"]
    assert len(list(pair.spool.directory.glob("*.seg"))) < 3
    pair.close()
    (pair.spool.directory / "cursor").unlink()
    pair.open()
    assert pair.missed() == []
    assert pair.drain(9)[-2:] == ["b4", "b5"]
    pair.close()


def test_a_spool_whose_directory_is_removed_beneath_it_begins_anew(pair: Pair) -> None:
    pair.put(0, 1, 2)
    held = pair.spool.head()
    assert held is not None
    assert held.id == "b0"
    shutil.rmtree(pair.spool.directory)
    pair.put(3)
    pair.put(4)
    assert len(list(pair.spool.directory.glob("*.seg"))) == 1
    assert pair.missed() == [(0, 30, "spool_damaged")]
    assert pair.spool.stats().blocks == 2
    pair.reopen()
    assert pair.drain(9) == ["b3", "b4"]
    assert pair.missed() == [(0, 30, "spool_damaged")]
    assert pair.lost() == []
    pair.close()


def test_what_is_not_committed_when_its_segment_goes_is_taken_back_like_what_was(pair: Pair) -> None:
    pair.put(0)
    one = block("b1", part(1, 10, 20))
    place = pair.spool.append(one, delivery(one.id))
    assert place is not None
    pair.spool.sync()
    pair.untold.append((place, one))
    for path in pair.spool.directory.glob("*.seg"):
        path.unlink()
    assert pair.spool.head() is None
    pair.commit([], [one])
    assert pair.missed() == [(0, 20, "spool_damaged")]
    pair.close()


def test_of_a_spool_cut_in_half_what_is_left_comes_and_the_rest_is_named(pair: Pair) -> None:
    pair.put(*range(10))
    pair.close()
    halve_all(pair.spool.directory)
    pair.open()
    came = pair.drain(99)
    assert came == [f"b{number}" for number in range(len(came))]
    assert 3 <= len(came) < 10
    assert pair.missed() == [(len(came) * 10, 100, "spool_missing")]
    pair.close()


def test_what_was_drained_before_a_kill_is_not_called_lost(pair: Pair) -> None:
    pair.put(0, 1, 2)
    assert pair.drain(2) == ["b0", "b1"]
    assert pair.rows() == [0, 10, 20]
    pair.reopen()  # nothing was committed since
    assert pair.lost() == []
    assert pair.rows() == [20]
    assert pair.drain(1) == ["b2"]
    pair.reopen()
    assert pair.rows() == []
    assert pair.lost() == []
    pair.close()


def test_a_block_that_was_synced_and_not_committed_gets_its_row_at_the_next_start(pair: Pair) -> None:
    one = block("b0", part(1, 0, 10))
    assert pair.spool.append(one, delivery("b0")) is not None
    pair.spool.sync()
    pair.checkpoint.set_positions([(1, "main", 0, b"")])
    assert pair.rows() == []
    pair.reopen()
    assert pair.rows() == [0]
    assert offsets(pair.checkpoint) == {(1, "main"): 10}
    pair.close()


def test_a_block_that_was_synced_not_committed_and_lost_is_still_in_its_file(pair: Pair) -> None:
    assert pair.spool.append(block("b0", part(1, 0, 10)), delivery("b0")) is not None
    pair.spool.sync()
    pair.close()
    remove_all(pair.spool.directory)
    pair.open()
    assert pair.lost() == []
    assert offsets(pair.checkpoint) == {}
    pair.close()


def test_a_header_that_breaks_while_the_agent_runs_is_named_by_its_row(pair: Pair) -> None:
    pair.put(0, 1, 2, bytes_=5000)
    (segment,) = pair.spool.directory.glob("*.seg")
    data = bytearray(segment.read_bytes())
    middle = len(data) // 3 + 20
    data[middle : middle + 60] = b"\xff" * 60
    with segment.open("r+b") as file:
        file.write(data)
    assert pair.drain(9) == ["b0", "b2"]
    assert pair.missed() == [(10, 20, "spool_damaged")]
    assert pair.lost() == []
    pair.close()


def test_a_header_found_broken_at_the_start_is_missed_once(pair: Pair) -> None:
    pair.put(0, 1, 2, bytes_=5000)
    pair.close()
    (segment,) = pair.spool.directory.glob("*.seg")
    data = bytearray(segment.read_bytes())
    middle = len(data) // 3 + 20
    data[middle : middle + 60] = b"\xff" * 60
    segment.write_bytes(data)
    pair.open()
    assert pair.drain(9) == ["b0", "b2"]
    assert pair.missed() == [(10, 20, "spool_missing")]
    assert pair.lost() == []
    pair.close()


def test_what_is_dropped_has_no_row_any_more(tmp_path: Path) -> None:
    pair = Pair(tmp_path, max_bytes=4 * MIB, when_full="drop_oldest")
    for number in range(12):
        pair.put(number, bytes_=MIB // 2)
    lost = pair.lost()
    assert {reason for *_, reason in lost} == {"spool_dropped"}
    first = max(end or 0 for _, end, _ in lost)
    assert first > 0
    assert pair.rows() == list(range(first, 120, 10))
    assert pair.drain(99) == [f"b{number}" for number in range(first // 10, 12)]
    pair.reopen()
    assert pair.lost() == lost
    pair.close()


def test_a_database_that_is_younger_than_the_spool_calls_nothing_lost(pair: Pair) -> None:
    pair.put(0, 1)
    pair.close()
    for path in pair.folder.glob("checkpoint.db*"):
        path.unlink()
    pair.open()
    assert pair.checkpoint.losses() == []
    assert pair.drain(9) == ["b0", "b1"]
    pair.close()


def test_what_can_be_cut_again_is_in_flight_and_the_rest_is_in_the_ledger(pair: Pair) -> None:
    pair.put(0, 1)
    two = block("b2", part(1, 20, 30), part(1, 30, 40))
    place = pair.spool.append(two, delivery("b2"))
    assert place is not None
    pair.spool.sync()
    pair.commit([(place, two)])
    pair.close()
    remove_all(pair.spool.directory)
    pair.open()
    assert pair.checkpoint.reclaiming == {"main"}
    whole, none, half = pair.checkpoint.reclaims("main", 9)
    pair.checkpoint.end_reclaim(whole, [])
    pair.checkpoint.end_reclaim(without(none, 0), [loss(10, 20)])
    pair.reopen()  # what is done is done
    assert pair.checkpoint.reclaims("main", 9) == [half]
    pair.checkpoint.end_reclaim(without(half, 1), [loss(30, 40)])
    assert pair.checkpoint.reclaiming == set()
    inflight = pair.checkpoint.inflight("main")
    assert [(one.id, one.observed_ns) for one in inflight] == [("b0", 123), ("b2", 123)]
    assert [[range_.start for range_ in part.ranges] for part in inflight[1].parts] == [[20], []]
    assert pair.checkpoint.losses() == [
        Loss("nginx", "/var/log/a.log", 1, start, start + 10, "spool_missing", 7, "main") for start in (10, 30)
    ]
    pair.close()


def test_losses_behind_the_position_are_none(pair: Pair) -> None:
    pair.put(0)
    pair.close()
    remove_all(pair.spool.directory)
    pair.open()
    (reclaim,) = pair.checkpoint.reclaims("main", 9)
    pair.checkpoint.end_reclaim(without(reclaim, 0), [loss(0, 30)])
    assert pair.lost() == [(0, 10, "spool_missing")]
    pair.close()


def test_an_output_that_changes_keeps_what_is_to_be_reclaimed(pair: Pair) -> None:
    """Its blocks in flight are forgotten, since they are read anew; these would not be."""
    pair.put(0, 1)
    pair.close()
    remove_all(pair.spool.directory)
    pair.open()
    first, second = pair.checkpoint.reclaims("main", 9)
    pair.checkpoint.end_reclaim(first, [])
    pair.checkpoint.commit([block("b2", part(1, 20, 30))], [])
    pair.checkpoint.drop_inflight("main")
    assert pair.checkpoint.inflight("main") == []
    assert [one.block for one in pair.checkpoint.reclaims("main", 9)] == [second.block, first.block]
    pair.close()


def test_files_that_are_to_be_reclaimed_from_are_not_forgotten(pair: Pair) -> None:
    pair.put(0)
    pair.close()
    remove_all(pair.spool.directory)
    pair.open()
    pair.checkpoint.update_files([file_row(id=1, gone_ns=5)])
    assert pair.checkpoint.forget_files(10) == 0
    (reclaim,) = pair.checkpoint.reclaims("main", 9)
    pair.checkpoint.end_reclaim(without(reclaim, 0), [loss(0, 10)])
    assert pair.checkpoint.forget_files(10) == 1
    pair.close()


def without(reclaim: Reclaim, number: int) -> Reclaim:
    """The same, one of its parts being gone."""
    parts = [one if at != number else one._replace(ranges=()) for at, one in enumerate(reclaim.block.parts)]
    return reclaim._replace(block=msgspec.structs.replace(reclaim.block, parts=tuple(parts)))


def loss(start: int, end: int) -> Loss:
    return Loss("nginx", "", 1, start, end, "spool_missing", 7, "main")


def test_of_many_blocks_just_those_that_are_gone_are_missed(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    (file,) = checkpoint.add_files([file_row()])
    many = [(Place(1 + number // 1000, number % 1000 * 10), number) for number in range(3500)]
    blocks = {place: block(f"b{number}", part(file, number * 10, number * 10 + 10)) for place, number in many}
    known = [(place, one) for place, one in blocks.items() if place != Place(2, 5000)]
    checkpoint.commit([], [one for _, one in known], SpoolChange("main", known, Place(1, 0)))
    gone = [Place(1, 0), Place(1, 9990), Place(2, 0), Place(3, 70), Place(4, 4980), Place(4, 4990)]
    held = [(place, header_of(one)) for place, one in blocks.items() if place not in gone]
    assert checkpoint.reconcile_spool("main", held, (Place(0, 0), Place(1, 0))) == gone
    missed = [reclaim.block.id for reclaim in checkpoint.reclaims("main", 99)]
    assert missed == ["b0", "b999", "b1000", "b2007", "b3498", "b3499"]
    checkpoint.close()
    rows = [row.place for row in read_books(tmp_path).spooled]
    assert sorted(rows) == [place for place in blocks if place not in gone]


def test_each_output_waits_for_what_it_lost_itself(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    (file,) = checkpoint.add_files([file_row()])
    for output in ("main", "more"):
        blocks = [(Place(1, at), block(f"{output}{at}", part(file, at, at + 1), output=output)) for at in range(3000)]
        checkpoint.commit([], [one for _, one in blocks], SpoolChange(output, blocks, Place(1, 0), Place(1, 3000)))
        checkpoint.lose_spooled(output, (Place(1, 0), Place(2, 0)), LossReason.SPOOL_DAMAGED)
    assert set(checkpoint.reclaiming) == {"main", "more"}
    for reclaim in checkpoint.reclaims("main", 9999):
        assert "main" in checkpoint.reclaiming
        checkpoint.end_reclaim(reclaim, [])
    assert set(checkpoint.reclaiming) == {"more"}
    assert len(checkpoint.inflight("main")) == 3000
    steps = itertools.count()
    with contextlib.closing(sqlite3.connect(tmp_path / "checkpoint.db")) as connection:
        connection.set_progress_handler(lambda: next(steps) < 0, 1)
        assert reclaims.waits(connection, "more")
    assert next(steps) < 1000, "one that is there is enough"
    checkpoint.close()
