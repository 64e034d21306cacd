"""The ledger names what nobody has any more, and nothing else: what was delivered once is not called lost later."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.state.durable import sync_directory
from tests.state.test_spool_rows import Pair, remove_all
from tests.state.values import block, delivery, file_row, flip, offsets, part
from tests.torture.disks import Disk

MIB = 1024 * 1024


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


def segment_of(pair: Pair) -> Path:
    (segment,) = pair.spool.directory.glob("*.seg")
    return segment


def lose_mark(pair: Pair) -> None:
    (pair.spool.directory / "cursor").unlink()


def test_damage_to_what_was_delivered_is_no_loss_when_the_mark_is_lost_too(pair: Pair) -> None:
    pair.put(0, 1, 2, bytes_=5000)
    pair.drain(2)
    pair.commit()
    pair.close()
    lose_mark(pair)
    flip(segment_of(pair), 3000)
    pair.open()
    assert pair.drain(9) == ["b1", "b2"]  # the backend knows b1
    assert pair.missed() == []
    assert pair.lost() == []


def test_nor_is_it_when_the_file_is_long_forgotten(pair: Pair) -> None:
    pair.put(0, bytes_=5000)
    pair.drain(1)
    pair.commit()
    pair.checkpoint.update_files([file_row(id=1, gone_ns=5)])
    assert pair.checkpoint.forget_files(10) == 1
    pair.close()
    lose_mark(pair)
    flip(segment_of(pair), 3000)
    pair.open()
    assert pair.drain(9) == []
    assert pair.missed() == []
    assert pair.lost() == []


def test_a_header_names_no_loss_where_the_database_knows_better(pair: Pair) -> None:
    """Of a frame that was cut off there is no row, whether it was delivered or never committed."""
    pair.put(0, 1, bytes_=5000)
    pair.drain(2)
    pair.commit()
    assert pair.spool.append(block("b2", part(1, 20, 30)), delivery("b2", os.urandom(5000))) is not None
    pair.spool.sync()
    pair.close()
    lose_mark(pair)
    segment = segment_of(pair)
    os.truncate(segment, segment.stat().st_size - 100)
    flip(segment, 3000)
    pair.open()
    pair.drain(9)
    assert pair.missed() == []
    assert pair.lost() == []
    assert offsets(pair.checkpoint) == {(1, "main"): 20}


def test_a_drained_segment_that_somebody_takes_away_is_no_loss(pair: Pair) -> None:
    pair.put(0, 1)
    pair.drain(2)
    pair.commit()
    pair.close()
    segment_of(pair).unlink()
    pair.open()
    assert pair.lost() == []


def test_headers_that_can_not_be_read_name_no_loss_where_the_database_knew_each_of_them(pair: Pair) -> None:
    pair.put(0, bytes_=5000)
    pair.put(1, bytes_=5000)
    pair.drain(2)
    pair.commit()
    pair.close()
    lose_mark(pair)
    segment = segment_of(pair)
    segment.write_bytes(b"\xff" * segment.stat().st_size)
    pair.open()
    assert pair.lost() == []
    pair.put(2)  # of another segment
    assert pair.drain(9) == ["b2"]


def test_a_database_that_is_older_than_a_block_does_not_deny_it(pair: Pair, tmp_path: Path) -> None:
    pair.put(0, bytes_=5000)
    pair.close()
    shutil.copy(pair.folder / "checkpoint.db", tmp_path / "older")
    pair.open()
    pair.put(1, bytes_=5000)
    pair.close()
    shutil.copy(tmp_path / "older", pair.folder / "checkpoint.db")
    for path in pair.spool.directory.glob("*.seg"):
        path.unlink()
    pair.open()
    assert pair.missed() == [(0, 10, "spool_missing")]
    assert [(start, end) for start, end, _ in pair.lost()] == [(0, None)]


def test_what_only_a_spool_knows_of_is_a_loss_when_it_is_damaged(pair: Pair) -> None:
    pair.put(0, 1, bytes_=5000)
    pair.close()
    for path in pair.folder.glob("checkpoint.db*"):
        path.unlink()
    flip(segment_of(pair), 3000)
    pair.open()
    assert pair.drain(9) == ["b1"]
    (reclaim,) = pair.checkpoint.reclaims("main", 9)
    assert [range_.start for one in reclaim.block.parts for range_ in one.ranges] == [0]


@pytest.mark.parametrize("at", [20, 3000], ids=["header", "payload"])
def test_a_block_that_is_damaged_before_it_is_committed_is_taken_back(pair: Pair, at: int) -> None:
    """Its position has not moved yet, and is about to."""
    pair.checkpoint.set_positions([(1, "main", 0, b"")])
    one = block("b0", part(1, 0, 10))
    place = pair.spool.append(one, delivery("b0", os.urandom(5000)))
    assert place is not None
    pair.spool.sync()
    pair.untold.append((place, one))
    flip(segment_of(pair), at)
    assert pair.spool.head() is None
    assert pair.lost() == []
    assert pair.spool.gave_up(place)
    pair.commit([], [one])
    assert offsets(pair.checkpoint) == {(1, "main"): 10}
    assert pair.rows() == []
    assert pair.missed() == [(0, 10, "spool_damaged")]
    assert pair.checkpoint.reclaiming == {"main"}
    assert pair.lost() == []


def test_what_was_given_up_is_not_taken_for_delivered_by_an_older_database(pair: Pair, tmp_path: Path) -> None:
    pair.put(0, 1, 2, bytes_=5000)
    pair.close()
    shutil.copy(pair.folder / "checkpoint.db", tmp_path / "older")
    flip(segment_of(pair), 3000)
    pair.open()
    assert pair.drain(9) == ["b1", "b2"]
    pair.commit()
    assert pair.missed() == [(0, 10, "spool_damaged")]
    pair.close()
    shutil.copy(tmp_path / "older", pair.folder / "checkpoint.db")
    pair.open()
    assert pair.missed()[0][0] == 0


def test_what_was_drained_behind_damage_is_not_sent_again(pair: Pair) -> None:
    """The database hears of what was drained a moment later, and is killed before."""
    pair.put(0, 1, 2, bytes_=5000)
    flip(segment_of(pair), 3000)
    assert pair.drain(9) == ["b1", "b2"]
    assert pair.rows() == [10, 20]
    pair.reopen()
    assert pair.rows() == []
    assert pair.missed() == [(0, 10, "spool_damaged")]


def test_what_was_dropped_is_not_taken_for_delivered_by_an_older_database(tmp_path: Path) -> None:
    pair = Pair(tmp_path, max_bytes=4 * MIB, when_full="drop_oldest")
    pair.put(0, bytes_=MIB // 2)
    pair.close()
    shutil.copy(pair.folder / "checkpoint.db", tmp_path / "older")
    pair.open()
    for number in range(1, 12):
        pair.put(number, bytes_=MIB // 2)
    assert pair.lost()[0][0] == 0
    pair.drain(99)
    pair.commit()
    pair.close()
    shutil.copy(tmp_path / "older", pair.folder / "checkpoint.db")
    pair.open()
    assert pair.missed() == [(0, 10, "spool_missing")]
    pair.close()


def test_a_lost_mark_leaves_in_doubt_what_lay_before_it(pair: Pair, tmp_path: Path) -> None:
    """It said what was given up there."""
    pair.put(0, 1, bytes_=5000)
    pair.close()
    shutil.copy(pair.folder / "checkpoint.db", tmp_path / "older")
    flip(segment_of(pair), 3000)
    pair.open()
    assert pair.drain(9) == ["b1"]
    pair.commit()
    pair.reopen()
    pair.close()
    lose_mark(pair)
    pair.open()
    pair.put(2)
    assert pair.drain(9) == ["b2"]
    pair.commit()
    pair.close()
    shutil.copy(tmp_path / "older", pair.folder / "checkpoint.db")
    pair.open()
    assert pair.missed()[0][0] == 0


@pytest.mark.parametrize("drained", [0, 3])
def test_numbers_of_segments_that_were_taken_away_are_not_used_again(pair: Pair, tmp_path: Path, drained: int) -> None:
    """Or the mark of the new ones would say of the old ones that they were delivered."""
    pair.put(0, 1)
    pair.close()
    pair.open()
    pair.put(2)
    pair.close()
    shutil.copy(pair.folder / "checkpoint.db", tmp_path / "older")
    remove_all(pair.spool.directory)
    pair.open()
    for number in range(3, 6):
        pair.put(number)
        pair.drain(drained)
        pair.commit()
        pair.reopen()
    pair.close()
    shutil.copy(tmp_path / "older", pair.folder / "checkpoint.db")
    pair.open()
    assert pair.missed() == [(0, 30, "spool_missing")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    mounted = Disk(tmp_path / "disk.img", tmp_path / "disk")
    yield mounted
    mounted.unmount()


def cut_power(disk: Disk, pair: Pair) -> None:
    """What is on the device now is all there is. Closing writes the rest, but to a disk that is thrown away."""
    disk.freeze_image()
    pair.close()
    disk.unmount()
    disk.use_frozen_image()
    disk.mount()
    pair.open()


needs_a_disk = pytest.mark.requires(root=True, tools=("mkfs.ext4", "e2fsck"))


@needs_a_disk
def test_a_power_cut_takes_the_database_back_to_the_last_look_and_no_further(disk: Disk) -> None:
    with contextlib.closing(Pair(disk.mount_point)) as pair:
        pair.checkpoint.commit([], [block("b0", part(1, 0, 10))])
        pair.checkpoint.look()
        pair.checkpoint.commit([], [block("b1", part(1, 10, 20))])
        cut_power(disk, pair)
        assert offsets(pair.checkpoint) == {(1, "main"): 10}


@needs_a_disk
def test_what_was_drained_before_a_power_cut_is_not_called_lost(disk: Disk) -> None:
    """The database comes back as it was before, with blocks in a segment that was drained and removed since."""
    with contextlib.closing(Pair(disk.mount_point, max_bytes=8 * MIB)) as pair:
        pair.put(0, 1, bytes_=MIB // 2)
        pair.put(2)
        pair.checkpoint.look()
        assert pair.rows() == [0, 10, 20]
        assert pair.drain(9) == ["b0", "b1", "b2"]
        pair.commit()
        assert len(list(pair.spool.directory.glob("*.seg"))) == 1
        sync_directory(pair.spool.directory)  # as the filesystem does every few seconds: the removal is durable
        cut_power(disk, pair)
        assert pair.missed() == []
        assert pair.lost() == []
