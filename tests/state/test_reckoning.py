"""Bytes are put under headings that add up, and what was passed over or can't be found is unaccounted."""

from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.model import Loss
from hostagent.state.checkpoint import Checkpoint, Position
from hostagent.state.database import positions, totals
from hostagent.state.database.connections import connect_read_only
from hostagent.state.database.positions import Progress
from hostagent.state.reckoning import Account, reckon, union, within, without
from hostagent.state.spool.spooled import Place
from tests.state.values import ANCHOR, block, file_row, header_of, part

HEADINGS = ("skipped", "delivered", "spooled", "dead_lettered", "lost", "lost_unsized", "waiting", "unaccounted")


def progress(offset: int, acked: int | None = None, skipped: int = 0, wanted: int = 1) -> Progress:
    return Progress(1, "main", offset, skipped, offset - skipped if acked is None else acked, wanted)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint.open(tmp_path, Clock())


def rows(checkpoint: Checkpoint) -> list[tuple[int, int, int, int]]:
    with connect_read_only(checkpoint.data_dir) as connection:
        return [(one.file, one.offset, one.skipped, one.acked) for one in positions.load(connection)]


@pytest.mark.parametrize(
    "account, headings",
    [
        (reckon(progress(100), exists=100), {"delivered": 100}),
        (reckon(progress(60), exists=100, readable=100), {"delivered": 60, "waiting": 40}),
        (reckon(progress(60), exists=100, readable=80), {"delivered": 60, "waiting": 20, "unaccounted": 20}),
        (reckon(progress(60), exists=100), {"delivered": 60, "unaccounted": 40}),
        (reckon(progress(60, acked=50), exists=60), {"delivered": 50, "unaccounted": 10}),
        (reckon(progress(60, skipped=20), exists=60), {"delivered": 40, "skipped": 20}),
        (reckon(progress(60, wanted=0), exists=100), {"delivered": 60}),
        (reckon(progress(60), exists=100, losses=[(60, 100)]), {"delivered": 60, "lost": 40}),
        (reckon(progress(60), exists=100, losses=[(60, None)]), {"delivered": 60, "lost_unsized": 40}),
        (
            reckon(progress(60), exists=100, losses=[(80, None)]),
            {"delivered": 60, "lost_unsized": 20, "unaccounted": 20},
        ),
        (reckon(progress(60), exists=60, losses=[(10, 20), (15, 30)]), {"delivered": 40, "lost": 20}),
        (reckon(progress(60), exists=60, spooled=[(10, 20), (15, 30)]), {"delivered": 40, "spooled": 20}),
        (
            reckon(progress(60), exists=60, spooled=[(10, 20)], losses=[(0, 15)]),
            {"delivered": 40, "lost": 15, "spooled": 5},
        ),
        (reckon(progress(60), exists=90, spooled=[(50, 90)]), {"delivered": 50, "spooled": 40}),
        (reckon(progress(60), exists=60, begun=[(10, 20), (40, 60)]), {"delivered": 30, "waiting": 30}),
        (reckon(progress(60), exists=90, readable=90, begun=[(60, 90)]), {"delivered": 60, "waiting": 30}),
        (
            reckon(progress(60), exists=60, begun=[(0, 40)], losses=[(0, 10)], spooled=[(30, 40)]),
            {"delivered": 20, "waiting": 20, "lost": 10, "spooled": 10},
        ),
        (reckon(progress(60), exists=60, refused=[((0, 20), 20)]), {"delivered": 40, "dead_lettered": 20}),
        (reckon(progress(60), exists=60, refused=[((0, 20), 7)]), {"delivered": 53, "dead_lettered": 7}),
        (
            reckon(progress(60), exists=60, refused=[((0, 20), 20)], losses=[(0, 15)]),
            {"delivered": 40, "lost": 15, "dead_lettered": 5},
        ),
    ],
)
def test_every_byte_is_under_one_heading(account: Account, headings: dict[str, int]) -> None:
    assert {name: getattr(account, name) for name in HEADINGS if getattr(account, name)} == headings
    assert account.written == sum(headings.values())


def test_ranges() -> None:
    assert union([(5, 9), (0, 3), (3, 4), (8, 10), (7, 7)]) == [(0, 4), (5, 10)]
    assert within([(0, 10)], [(2, 3), (8, 20)]) == [(2, 3), (8, 10)]
    assert without([(0, 10), (20, 30)], [(2, 3), (8, 22), (29, 40)]) == [(0, 2), (3, 8), (22, 29)]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_a_block_that_is_acked_long_after_others_hides_none_of_theirs(
    checkpoint: Checkpoint, order: tuple[int, ...]
) -> None:
    """As one that a spool had lost, committed together with new ones."""
    (file,) = checkpoint.add_files([file_row()])
    checkpoint.commit([], [block("b0", part(file, 0, 500))])
    blocks = [
        block("again", part(file, 100, 200)),
        block("b1", part(file, 500, 600)),
        block("b2", part(file, 600, 650)),
    ]
    checkpoint.commit([], [blocks[number] for number in order])
    assert rows(checkpoint) == [(file, 650, 0, 650)]


def test_acks_in_order_leave_no_gap_and_a_block_passed_over_does(checkpoint: Checkpoint) -> None:
    whole, gap = checkpoint.add_files([file_row(), file_row(inode=2, positions={"main": Position(0, ANCHOR)})])
    first = [block("a", part(whole, 0, 10), part(gap, 0, 10))]
    checkpoint.commit([], first)
    checkpoint.commit([], [block("b", part(whole, 10, 30)), block("c", part(whole, 30, 35))])
    checkpoint.commit([], [block("d", part(gap, 25, 30))])
    assert rows(checkpoint) == [(whole, 35, 0, 35), (gap, 30, 0, 15)]
    checkpoint.commit([], first)  # a commit that is repeated
    checkpoint.commit([], [block("e", part(whole, 30, 40))])
    assert rows(checkpoint) == [(whole, 40, 0, 40), (gap, 30, 0, 15)]
    checkpoint.close()


def test_what_an_output_is_told_to_skip_is_no_gap(checkpoint: Checkpoint) -> None:
    new, old = checkpoint.add_files([file_row(positions={"main": Position(50, ANCHOR)}), file_row(inode=2)])
    checkpoint.commit([], [block("a", part(new, 50, 60)), block("b", part(old, 0, 10))])
    checkpoint.set_positions([(old, "main", 30, ANCHOR)])
    checkpoint.commit([], [block("c", part(old, 30, 40))])
    assert rows(checkpoint) == [(new, 60, 50, 10), (old, 40, 20, 20)]
    checkpoint.close()


def test_a_block_done_before_one_that_was_spooled_is_done(checkpoint: Checkpoint) -> None:
    """Killed after "b" was synced into the spool and before the acks of "a" and "b" were committed."""
    (file,) = checkpoint.add_files([file_row()])
    checkpoint.commit([block("a", part(file, 0, 10)), block("later", part(file, 20, 30))], [])
    spooled = block("b", part(file, 10, 20))
    assert checkpoint.reconcile_spool("main", [(Place(1, 0), header_of(spooled))], (Place(0, 0), Place(1, 0))) == []
    assert rows(checkpoint) == [(file, 20, 0, 20)]
    assert [one.id for one in checkpoint.inflight("main")] == ["later"]
    checkpoint.close()


def test_forgotten_files_stay_in_the_totals(checkpoint: Checkpoint) -> None:
    fine, lagging, lost, passed = checkpoint.add_files(
        [file_row(inode=inode, gone_ns=1, positions={"main": Position(0, ANCHOR)}) for inode in range(4)]
    )
    checkpoint.commit([], [block("a", part(fine, 0, 100), part(lagging, 0, 40), part(lost, 0, 10))])
    checkpoint.commit([], [block("b", part(lagging, 0, 100), output="other")])
    checkpoint.commit([], [block("c", part(passed, 0, 10)), block("d", part(passed, 15, 20))])
    checkpoint.add_losses(
        [Loss("nginx", "", lost, 10, None, "deleted", 1), Loss("nginx", "", lost, 10, 70, "x", 1, "main")]
    )
    assert checkpoint.forget_files(older_than_ns=2) == 4
    with connect_read_only(checkpoint.data_dir) as connection:
        main, other = totals.load(connection)
    assert main == ("nginx", "main", 4, 290, 0, 100 + 40 + 10 + 15, 60, 0, 60 + 5)
    assert other == ("nginx", "other", 1, 100, 0, 100, 0, 0, 0)
    assert rows(checkpoint) == []
    checkpoint.close()
