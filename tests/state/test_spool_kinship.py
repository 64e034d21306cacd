"""A database and a spool of different age, or of different agents: nothing is taken for what it is not."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.state.spool.spooled import Place
from tests.state.test_spool_rows import Pair, remove_all
from tests.state.values import block, delivery, flip, offsets, part

MIB = 1024 * 1024


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path / "state")
    yield made
    made.close()


def keep(pair: Pair, folder: Path, what: str) -> None:
    """A copy of the database or of the spool, made while the agent is stopped."""
    pair.close()
    source = pair.folder / what
    if source.is_dir():
        shutil.copytree(source, folder)
    else:
        shutil.copy(source, folder)
    pair.open()


def back_up(pair: Pair, folder: Path) -> None:
    """A copy of the database while it is in use."""
    with (
        contextlib.closing(sqlite3.connect(folder)) as copy,
        contextlib.closing(sqlite3.connect(pair.folder / "checkpoint.db")) as today,
    ):
        today.backup(copy)


def put_back(pair: Pair, folder: Path, what: str) -> None:
    pair.close()
    target = pair.folder / what
    if folder.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    else:
        shutil.copy(folder, target)
    pair.open()


def test_numbers_that_came_again_say_nothing_of_an_older_databases_blocks(pair: Pair, tmp_path: Path) -> None:
    """Nobody is left who knows that segment 1 was there once, so there is another; and that one is delivered."""
    keep(pair, tmp_path / "first", "checkpoint.db")
    pair.put(0, 1)
    keep(pair, tmp_path / "older", "checkpoint.db")
    remove_all(pair.spool.directory)
    put_back(pair, tmp_path / "first", "checkpoint.db")
    pair.put(5, 6, 7)
    pair.drain(3)
    pair.commit()
    pair.put(8)
    pair.reopen()
    put_back(pair, tmp_path / "older", "checkpoint.db")
    assert pair.missed() == [(0, 20, "spool_missing")]
    assert pair.drain(9) == ["b8"]


def test_another_block_at_the_same_place_is_not_taken_for_the_one_that_is_listed(pair: Pair, tmp_path: Path) -> None:
    keep(pair, tmp_path / "first", "checkpoint.db")
    pair.put(0, 1)
    keep(pair, tmp_path / "older", "checkpoint.db")
    remove_all(pair.spool.directory)
    put_back(pair, tmp_path / "first", "checkpoint.db")
    pair.put(5, 6)
    put_back(pair, tmp_path / "older", "checkpoint.db")
    assert pair.missed() == [(0, 20, "spool_missing")]
    assert pair.drain(9) == ["b5", "b6"]
    pair.commit()
    pair.reopen()
    assert pair.missed() == [(0, 20, "spool_missing")]


def test_what_an_older_spool_says_is_done_says_nothing_of_later_blocks(pair: Pair, tmp_path: Path) -> None:
    pair.put(0)
    keep(pair, tmp_path / "spool", "spool")
    pair.put(1, 2)
    keep(pair, tmp_path / "older", "checkpoint.db")
    pair.drain(3)
    pair.commit()
    put_back(pair, tmp_path / "spool", "spool")
    for number in range(3, 6):
        pair.put(number)
        pair.drain(9)
        pair.commit()
        pair.reopen()
    put_back(pair, tmp_path / "older", "checkpoint.db")
    assert pair.missed() == [(0, 30, "spool_missing")]


def test_the_copy_of_a_spool_in_use_is_older_than_the_database_of_the_same_run(tmp_path: Path) -> None:
    """What it has drained later says nothing of segments that were begun after it was copied."""
    with contextlib.closing(Pair(tmp_path / "state", max_bytes=8 * MIB)) as pair:
        pair.put(0, bytes_=MIB)
        shutil.copytree(pair.folder / "spool", tmp_path / "spool")
        pair.put(1)
        back_up(pair, tmp_path / "older")
        pair.drain(2)
        pair.commit()
        put_back(pair, tmp_path / "spool", "spool")
        pair.put(2)
        pair.drain(9)
        pair.commit()
        pair.reopen()
        put_back(pair, tmp_path / "older", "checkpoint.db")
        assert pair.missed()[0][:2] == (0, 20)


@pytest.mark.parametrize("mark_lost", [False, True])
def test_a_database_of_an_earlier_run_still_knows_what_was_delivered_since(
    pair: Pair, tmp_path: Path, mark_lost: bool
) -> None:
    """Its blocks are not called missing only because the agent was started again."""
    pair.put(0, 1)
    keep(pair, tmp_path / "older", "checkpoint.db")
    pair.drain(1)
    pair.commit()
    pair.reopen()
    pair.put(2)
    pair.close()
    if mark_lost:
        (pair.spool.directory / "cursor").unlink()
    pair.open()
    put_back(pair, tmp_path / "older", "checkpoint.db")
    assert pair.missed() == []
    assert pair.drain(9) == (["b0"] if mark_lost else []) + ["b1", "b2"]


def test_a_database_from_before_the_first_block_was_spooled_knows_the_spool(pair: Pair, tmp_path: Path) -> None:
    """What it has not seen being spooled need not be read again."""
    pair.checkpoint.set_positions([(1, "main", 0, b"")])
    back_up(pair, tmp_path / "older")
    pair.put(0, 1)
    put_back(pair, tmp_path / "older", "checkpoint.db")
    assert offsets(pair.checkpoint) == {(1, "main"): 20}
    assert pair.drain(9) == ["b0", "b1"]


def test_a_spool_of_another_agent_moves_no_position(pair: Pair, tmp_path: Path) -> None:
    """Its files have the same ids as ours and are others."""
    with contextlib.closing(Pair(tmp_path / "other")) as other:
        other.put(0, 1, 2)
    pair.checkpoint.set_positions([(1, "main", 0, b"")])
    put_back(pair, tmp_path / "other" / "spool", "spool")
    assert offsets(pair.checkpoint) == {(1, "main"): 0}
    assert any("another agent" in notice.message for notice in pair.spool.notices())
    assert pair.drain(9) == ["b0", "b1", "b2"]
    pair.put(0)
    pair.reopen()
    assert offsets(pair.checkpoint) == {(1, "main"): 10}
    assert not any("another agent" in notice.message for notice in pair.spool.notices())


def test_a_block_in_flight_is_known_even_in_a_spool_of_another_age(pair: Pair, tmp_path: Path) -> None:
    pair.put(0)
    keep(pair, tmp_path / "spool", "spool")
    pair.reopen()
    pair.drain(1)
    pair.commit()
    pair.checkpoint.set_positions([(1, "main", 0, b"")])
    pair.checkpoint.commit([block("b0", part(1, 0, 10))], [])
    put_back(pair, tmp_path / "spool", "spool")
    assert offsets(pair.checkpoint) == {(1, "main"): 10}
    assert pair.checkpoint.inflight("main") == []


def test_what_a_database_has_listed_of_other_segments_hides_no_loss(pair: Pair, tmp_path: Path) -> None:
    """The older database had a block at that place, so damage there would be no news to it; but not this one."""
    keep(pair, tmp_path / "first", "checkpoint.db")
    pair.put(0, 1, bytes_=5000)
    pair.drain(2)
    pair.commit()
    keep(pair, tmp_path / "older", "checkpoint.db")
    remove_all(pair.spool.directory)
    put_back(pair, tmp_path / "first", "checkpoint.db")
    place = pair.spool.append(one := block("c0", part(77, 0, 10)), delivery("c0", os.urandom(5000)))
    assert place is not None
    pair.spool.sync()
    pair.commit([(place, one)])
    pair.put(5)
    pair.close()
    segment = next(pair.spool.directory.glob("*.seg"))
    shutil.copy(tmp_path / "older", pair.folder / "checkpoint.db")
    flip(segment, 20)
    pair.open()
    pair.drain(9)
    assert pair.lost() == [(0, None, "spool_damaged")]


def test_names_of_runs_that_are_damaged_leave_in_doubt_what_was_done(pair: Pair, tmp_path: Path) -> None:
    pair.put(0)
    keep(pair, tmp_path / "older", "checkpoint.db")
    pair.drain(1)
    pair.commit()
    pair.put(1)
    pair.close()
    flip(pair.spool.directory / "cursor", 200)
    shutil.copy(tmp_path / "older", pair.folder / "checkpoint.db")
    pair.open()
    assert pair.missed() == [(0, 10, "spool_missing")]
    assert pair.drain(9) == ["b1"]


def test_a_spool_and_a_database_that_name_no_run_are_those_of_an_older_agent(pair: Pair) -> None:
    pair.put(0, 1)
    pair.drain(1)
    assert pair.rows() == [0, 10]
    pair.close()
    os.truncate(pair.spool.directory / "cursor", 128)
    with contextlib.closing(sqlite3.connect(pair.folder / "checkpoint.db", isolation_level=None)) as database:
        assert database.execute("DELETE FROM meta WHERE key LIKE 'spool run %'").rowcount == 1
    pair.open()
    assert pair.missed() == []
    assert pair.rows() == [10]


def test_a_directory_that_is_put_there_while_the_agent_runs_is_looked_through(pair: Pair, tmp_path: Path) -> None:
    with contextlib.closing(Pair(tmp_path / "other")) as other:
        other.put(0, 1)
    shutil.copytree(tmp_path / "other" / "spool", pair.folder / "spool")
    one = block("b7", part(1, 0, 10))
    assert pair.spool.append(one, delivery("b7")) is not None
    pair.spool.sync()
    assert pair.spool.stats().blocks == 3
    assert pair.drain(9) == ["b0", "b1", "b7"]
    assert pair.spool.place is not None
    assert pair.spool.place > Place(1, 0)


def segments_of(pair: Pair) -> list[Path]:
    return sorted(pair.spool.directory.glob("*.seg"))


@pytest.mark.parametrize("number", [0, 2, 9])
def test_a_copy_of_a_segment_under_another_number_is_told_from_it(pair: Pair, number: int) -> None:
    pair.put(0, 1)
    pair.close()
    (segment,) = segments_of(pair)
    shutil.copy(segment, segment.with_name(f"{number:012d}{segment.name[12:]}"))
    pair.open()
    assert pair.drain(9) == ["b0", "b1"]
    assert any("is a copy of another one" in notice.message for notice in pair.spool.notices())
    pair.commit()
    pair.put(2)
    pair.reopen()
    assert pair.drain(9) == ["b2"]
    assert (pair.missed(), pair.lost()) == ([], [])


def test_a_copy_takes_no_place_of_another_segment(pair: Pair) -> None:
    """Two have one number, and the copied one is there, too: neither is mistaken."""
    pair.put(0, 1)
    pair.reopen()
    pair.put(2)
    pair.close()
    first, second = segments_of(pair)
    shutil.copy(second, first.with_name(first.name[:12] + second.name[12:]))
    pair.open()
    assert pair.drain(9) == ["b0", "b1", "b2"]
    assert (pair.missed(), pair.lost()) == ([], [])


def test_a_renamed_segment_that_takes_anothers_number_hides_nothing(pair: Pair) -> None:
    pair.put(0, 1)
    pair.reopen()
    pair.put(2)
    pair.close()
    first, second = segments_of(pair)
    second.rename(first.with_name(first.name[:12] + second.name[12:]))
    pair.open()
    delivered = pair.drain(9)
    missed = [reclaim.block.id for reclaim in pair.checkpoint.reclaims("main", 9)]
    assert sorted(delivered + missed) == ["b0", "b1", "b2"]


def test_what_an_older_copy_of_a_spool_holds_once_more_moves_no_position(pair: Pair, tmp_path: Path) -> None:
    """Of another agent's blocks the database has known, too, that they were there and were delivered."""
    with contextlib.closing(Pair(tmp_path / "other")) as other:
        other.put(0, 1)
    pair.checkpoint.set_positions([(1, "main", 0, b"")])
    put_back(pair, tmp_path / "other" / "spool", "spool")
    shutil.copytree(pair.folder / "spool", tmp_path / "spool")
    assert pair.drain(9) == ["b0", "b1"]
    pair.commit()
    put_back(pair, tmp_path / "spool", "spool")
    assert offsets(pair.checkpoint) == {(1, "main"): 0}


def test_damage_that_an_older_database_does_not_know_is_told_before_it_seems_known(pair: Pair, tmp_path: Path) -> None:
    """It is news as long as nothing behind it is listed."""
    pair.put(0, bytes_=5000)
    back_up(pair, tmp_path / "older")
    place = pair.spool.append(one := block("c0", part(77, 0, 10)), delivery("c0", os.urandom(5000)))
    assert place is not None
    pair.spool.sync()
    pair.commit([(place, one)])
    pair.put(1)
    pair.close()
    (segment,) = segments_of(pair)
    with segment.open("rb") as file:
        file.seek(place.offset)
        assert file.read(3) == b"HAF"
    shutil.copy(tmp_path / "older", pair.folder / "checkpoint.db")
    flip(segment, place.offset + 20)
    pair.open()
    pair.put(2)
    pair.drain(9)
    assert pair.lost() == [(place.offset, None, "spool_damaged")]
