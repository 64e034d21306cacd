"""The database knows which bytes a spool should hold: whatever becomes of its files, what is gone has a name."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hostagent.model import Block, Loss
from hostagent.state.books import read_books
from hostagent.state.checkpoint import Checkpoint, SpoolChange
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

    def commit(self, added: Sequence[tuple[Place, Block]] = ()) -> None:
        head = self.spool.place
        assert head is not None
        self.checkpoint.commit([], [one for _, one in added], SpoolChange("main", added, head))

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
def test_a_spool_of_which_nothing_is_left_is_in_the_ledger_to_the_byte(
    pair: Pair, ruin: Callable[[Path], None]
) -> None:
    pair.put(0, 1, 2)
    pair.put(3, 4)
    assert pair.drain(2) == ["b0", "b1"]
    pair.commit()
    pair.close()
    ruin(pair.spool.directory)
    pair.open()
    assert pair.drain(9) == []
    assert pair.lost() == [(20, 50, "spool_missing")]
    assert pair.rows() == []
    assert any("3 blocks" in notice.message for notice in pair.spool.notices())
    pair.reopen()
    assert pair.lost() == [(20, 50, "spool_missing")]
    pair.close()


def test_of_a_spool_cut_in_half_what_is_left_comes_and_the_rest_is_named(pair: Pair) -> None:
    pair.put(*range(10))
    pair.close()
    halve_all(pair.spool.directory)
    pair.open()
    came = pair.drain(99)
    assert came == [f"b{number}" for number in range(len(came))]
    assert 3 <= len(came) < 10
    assert pair.lost() == [(len(came) * 10, 100, "spool_missing")]
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
    assert pair.lost() == [(10, 20, "spool_damaged")]
    pair.close()


def test_a_header_found_broken_at_the_start_is_in_the_ledger_once(pair: Pair) -> None:
    pair.put(0, 1, 2, bytes_=5000)
    pair.close()
    (segment,) = pair.spool.directory.glob("*.seg")
    data = bytearray(segment.read_bytes())
    middle = len(data) // 3 + 20
    data[middle : middle + 60] = b"\xff" * 60
    segment.write_bytes(data)
    pair.open()
    assert pair.drain(9) == ["b0", "b2"]
    assert pair.lost() == [(10, 20, "spool_missing")]
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


def test_losses_know_their_file(pair: Pair) -> None:
    pair.put(0)
    pair.close()
    remove_all(pair.spool.directory)
    pair.open()
    (loss,) = pair.checkpoint.losses()
    assert loss == Loss("nginx", "/var/log/a.log", 1, 0, 10, "spool_missing", loss.at_ns, "main")
    pair.close()


def test_of_many_blocks_just_those_that_are_gone_are_lost(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    (file,) = checkpoint.add_files([file_row()])
    many = [(Place(1 + number // 1000, number % 1000 * 10), number) for number in range(3500)]
    blocks = {place: block(f"b{number}", part(file, number * 10, number * 10 + 10)) for place, number in many}
    known = [(place, one) for place, one in blocks.items() if place != Place(2, 5000)]
    checkpoint.commit([], [one for _, one in known], SpoolChange("main", known, Place(1, 0)))
    gone = [Place(1, 0), Place(1, 9990), Place(2, 0), Place(3, 70), Place(4, 4980), Place(4, 4990)]
    held = [(place, header_of(one)) for place, one in blocks.items() if place not in gone]
    assert checkpoint.reconcile_spool("main", held, Place(1, 0)) == gone
    assert [(loss.start, loss.end) for loss in checkpoint.losses()] == [
        (0, 10),
        (9990, 10_010),
        (20_070, 20_080),
        (34_980, 35_000),
    ]
    checkpoint.close()
    rows = [row.place for row in read_books(tmp_path).spooled]
    assert sorted(rows) == [place for place in blocks if place not in gone]
