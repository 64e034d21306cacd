"""The spool keeps blocks in order across restarts, within its bounds, and tells before it gives anything up."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostagent.errors import StateError
from hostagent.state.spool.spool import Spool
from tests.state.values import HandClock, Losses, block, delivery, part, spool_config

MIB = 1024 * 1024
Opener = Callable[..., Spool]


@pytest.fixture
def losses() -> Losses:
    return Losses()


@pytest.fixture
def open_spool(tmp_path: Path, losses: Losses) -> Iterator[Opener]:
    opened: list[Spool] = []

    def open_it(**fields: object) -> Spool:
        for spool in opened:
            spool.close()
        opened.append(Spool.open(tmp_path, "main", spool_config(**fields), HandClock(), losses))
        return opened[-1]

    yield open_it
    for spool in opened:
        spool.close()


def put(spool: Spool, name: str, body: bytes = b"body", file: int = 1, start: int = 0) -> bool:
    return spool.append(block(name, part(file, start, start + 10)), delivery(name, body)) is not None


def drain(spool: Spool) -> list[str]:
    names = []
    while head := spool.head():
        names.append(head.id)
        spool.advance()
    return names


def segment_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "spool" / "main").glob("*.seg"))


def test_a_healthy_output_has_nothing_on_disk(open_spool: Opener, tmp_path: Path) -> None:
    spool = open_spool()
    assert spool.head() is None
    assert spool.stats()[:5] == (0, 0, 0, 0, None)
    spool.sync()
    assert os.listdir(tmp_path) == []


def test_blocks_come_back_as_they_were_and_in_order(open_spool: Opener) -> None:
    spool = open_spool()
    one = block("b1", part(1, 0, 10), part(2, 5, 25))
    assert spool.append(one, delivery("b1", b"\x00\xff" * 1000))
    assert put(spool, "b2")
    assert spool.head() is None, "what is not synced yet is not given out"
    spool.sync()
    assert spool.stats()[1:5] == (2, 6, 40, 123)
    head = spool.head()
    assert head is not None
    assert (head.id, head.header.observed_ns, head.header.raw_bytes) == ("b1", 123, 30)
    assert head.delivery == delivery("b1", b"\x00\xff" * 1000)
    assert [part.ranges for part in head.parts] == [part.ranges for part in one.parts]
    assert spool.head() is head
    spool.advance()
    assert drain(spool) == ["b2"]
    assert spool.stats()[1:5] == (0, 0, 0, None)


def test_a_restart_goes_on_where_it_was(open_spool: Opener, losses: Losses) -> None:
    spool = open_spool()
    for number in range(5):
        put(spool, f"b{number}")
    spool.sync()
    spool.head()
    spool.advance()
    spool.head()  # given out, not delivered
    spool = open_spool()
    assert spool.stats().blocks == 4
    assert [header.id for header in spool.contents()] == ["b1", "b2", "b3", "b4"]
    put(spool, "b5")
    spool.sync()
    assert drain(spool) == ["b1", "b2", "b3", "b4", "b5"]
    assert losses == []
    assert spool.notices() == []


def test_segments_roll_over_and_go_away_when_drained(open_spool: Opener, tmp_path: Path) -> None:
    spool = open_spool(max_bytes=16 * MIB)
    names = [f"b{number}" for number in range(40)]
    for name in names:
        put(spool, name, os.urandom(256 * 1024))
        spool.sync()
    assert 4 <= len(segment_files(tmp_path)) <= 6
    assert drain(spool) == names
    assert sum(path.stat().st_size for path in segment_files(tmp_path)) < MIB


def test_a_drained_spool_leaves_no_segment_after_a_restart(open_spool: Opener, tmp_path: Path) -> None:
    spool = open_spool()
    put(spool, "b1")
    spool.sync()
    assert drain(spool) == ["b1"]
    spool = open_spool()
    assert segment_files(tmp_path) == []
    put(spool, "b2")
    spool.sync()
    spool = open_spool()
    assert drain(spool) == ["b2"]


def test_a_full_spool_refuses_and_takes_again_when_drained(open_spool: Opener, losses: Losses) -> None:
    spool = open_spool(max_bytes=4 * MIB)
    taken = []
    for number in range(10):
        if put(spool, f"b{number}", os.urandom(MIB // 2)):
            taken.append(f"b{number}")
        spool.sync()
    assert 6 <= len(taken) < 10
    assert "spool.max_bytes" in spool.full
    assert [notice.subject for notice in spool.notices()] == ["spool main"]
    assert spool.stats().disk_bytes <= 4 * MIB
    assert drain(spool) == taken
    assert put(spool, "later", os.urandom(MIB // 2))
    assert spool.full == ""
    assert losses == []


def test_the_free_disk_reserve_is_kept(open_spool: Opener) -> None:
    spool = open_spool(reserve_bytes=1 << 60)
    assert not put(spool, "b1")
    assert "reserve_bytes" in spool.full


def test_drop_oldest_makes_room_and_says_what_it_cost(open_spool: Opener, losses: Losses) -> None:
    spool = open_spool(max_bytes=8 * MIB, when_full="drop_oldest")
    for number in range(40):
        assert put(spool, f"b{number}", os.urandom(MIB // 2), start=number * 10)
        spool.sync()
    left = drain(spool)
    first = int(left[0][1:])
    assert left == [f"b{number}" for number in range(first, 40)]
    assert first >= 24
    assert {loss.reason for loss in losses} == {"spool_dropped"}
    assert losses[0].output == "main"
    ends = sorted((loss.start, loss.end) for loss in losses)
    assert ends[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ends)), "no hole, no overlap"
    assert ends[-1][1] == first * 10
    assert spool.stats().blocks == 0


def test_drop_oldest_spares_the_block_that_is_being_delivered(open_spool: Opener, losses: Losses) -> None:
    spool = open_spool(max_bytes=8 * MIB, when_full="drop_oldest")
    put(spool, "b0", os.urandom(MIB))
    spool.sync()
    head = spool.head()
    for number in range(1, 30):
        assert put(spool, f"b{number}", os.urandom(MIB), start=number * 10)
        spool.sync()
    assert spool.head() is head
    spool.advance()
    left = drain(spool)
    assert left[-1] == "b29"
    assert len(losses) > 0
    assert 0 not in {loss.start for loss in losses}


def test_nothing_is_dropped_when_the_ledger_can_not_be_written(tmp_path: Path) -> None:
    class Refusal(Losses):
        def add_losses(self, _: object) -> None:
            raise StateError("disk full")

    config = spool_config(max_bytes=4 * MIB, when_full="drop_oldest")
    spool = Spool.open(tmp_path, "main", config, HandClock(), Refusal())
    taken: list[str] = []
    body = os.urandom(MIB // 2)
    while spool.stats().disk_bytes < 3 * MIB + len(body):
        put(spool, f"b{len(taken)}", body)
        taken.append(f"b{len(taken)}")
        spool.sync()
    with pytest.raises(StateError):
        put(spool, "one too many", body)
    assert drain(spool) == taken
    spool.close()


def test_a_block_larger_than_the_whole_spool_drops_nothing(open_spool: Opener, losses: Losses) -> None:
    spool = open_spool(max_bytes=2 * MIB, when_full="drop_oldest")
    put(spool, "small")
    spool.sync()
    assert not put(spool, "big", bytes(3 * MIB))
    assert drain(spool) == ["small"]
    assert losses == []


def test_a_spool_of_size_zero_takes_nothing(open_spool: Opener, tmp_path: Path) -> None:
    spool = open_spool(max_bytes=0)
    assert not put(spool, "b1")
    assert os.listdir(tmp_path) == []


def test_two_agents_can_not_share_a_spool(open_spool: Opener, tmp_path: Path) -> None:
    put(open_spool(), "b1")
    with pytest.raises(StateError, match=f"pid {os.getpid()}"):
        Spool.open(tmp_path, "main", spool_config(), HandClock(), Losses())


def test_outputs_with_strange_names_stay_apart_and_inside(tmp_path: Path) -> None:
    names = ["..", "a/b", "a%2fb", "ä"]
    spools = [Spool.open(tmp_path, name, spool_config(), HandClock(), Losses()) for name in names]
    for spool in spools:
        put(spool, "b")
        spool.sync()
    assert len(os.listdir(tmp_path / "spool")) == 4
    assert sorted(os.listdir(tmp_path)) == ["spool"]
    for spool in spools:
        spool.close()


@pytest.mark.parametrize("when_full", ["block", "drop_oldest"])
@pytest.mark.parametrize("what", ["payload", "header"])
def test_what_could_not_be_read_back_is_not_spooled(open_spool: Opener, what: str, when_full: str) -> None:
    """It waits in its file, and nothing makes room for it in vain."""
    spool = open_spool(max_bytes=2048 * MIB, when_full=when_full)
    assert put(spool, "b0")
    spool.sync()
    if what == "payload":
        assert not put(spool, "b1", bytes(512 * MIB + 1))
    else:
        big = block("b1", part(1, 10, 20, source="s" * 64 * MIB))
        assert spool.append(big, delivery("b1")) is None
    assert "lower block.max_bytes" in spool.full
    assert any("lower block.max_bytes" in notice.message for notice in spool.notices())
    assert put(spool, "b2")
    assert spool.full == ""
    spool.sync()
    assert drain(spool) == ["b0", "b2"]
