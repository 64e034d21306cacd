"""Positions, in-flight blocks and files as the rest of the agent sees them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.model import FileId, Loss, Part, Range
from hostagent.state.checkpoint import Checkpoint, Position
from hostagent.state.database.ledger import LossReason, LossTotal
from hostagent.state.spool.spooled import Place
from tests.state.values import ANCHOR, HandClock, block, file_row, header_of, offsets, part


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def checkpoint(tmp_path: Path, clock: HandClock) -> Iterator[Checkpoint]:
    opened = Checkpoint.open(tmp_path / "data", clock)
    yield opened
    opened.close()


def reopen(checkpoint: Checkpoint, clock: HandClock) -> Checkpoint:
    checkpoint.close()
    return Checkpoint.open(checkpoint.data_dir, clock)


def test_files_come_back_as_they_were_stored(checkpoint: Checkpoint, clock: HandClock) -> None:
    rows = [
        file_row(
            "/var/log/caf\udce9\n.log",
            inode=2**64 - 3,
            tags={"pod": "web \udcff", "n": 3, "f": 1.5, "none": None, "b": True},
            target="t/\udc80",
            storage="gzip",
            generation=4,
            seen_ns=11,
            gone_ns=12,
            positions={"main": Position(5, ANCHOR), "other": Position(0, b"")},
        ),
        file_row(),
    ]
    ids = checkpoint.add_files(rows)
    again = reopen(checkpoint, clock)
    assert again.files() == [_with_id(row, id_) for row, id_ in zip(rows, ids, strict=True)]
    again.close()


def test_an_update_changes_the_file_and_leaves_its_positions(checkpoint: Checkpoint) -> None:
    (id_,) = checkpoint.add_files([file_row(positions={"main": Position(5, ANCHOR)})])
    changed = file_row("/var/log/a.log.1", id=id_, gone_ns=99)
    checkpoint.update_files([changed])
    (row,) = checkpoint.files()
    assert (row.path, row.gone_ns, row.positions) == ("/var/log/a.log.1", 99, {"main": Position(5, ANCHOR)})


def test_ids_are_never_used_twice(checkpoint: Checkpoint, clock: HandClock) -> None:
    first = checkpoint.add_files([file_row(gone_ns=1)])
    checkpoint.forget_files(older_than_ns=2)
    again = reopen(checkpoint, clock)
    assert again.files() == []
    second = again.add_files([file_row()])
    assert first[0] < second[0]
    again.close()


def test_nothing_added_uses_no_id(checkpoint: Checkpoint) -> None:
    (first,) = checkpoint.add_files([file_row()])
    assert checkpoint.add_files([]) == []
    assert checkpoint.add_files([file_row()]) == [first + 1]


def test_an_ack_moves_the_positions_of_its_output_only(checkpoint: Checkpoint) -> None:
    one, two = checkpoint.add_files([file_row(), file_row("/var/log/b.log", inode=2)])
    sent = block("b1", part(one, 0, 100), part(two, 0, 50), part(one, 100, 130))
    checkpoint.commit([sent], [])
    assert offsets(checkpoint) == {}
    checkpoint.commit([], [sent])
    assert offsets(checkpoint) == {(one, "main"): 130, (two, "main"): 50}
    assert checkpoint.inflight("main") == []


def test_a_late_ack_never_moves_a_position_back(checkpoint: Checkpoint) -> None:
    (file,) = checkpoint.add_files([file_row()])
    checkpoint.commit([], [block("b2", part(file, 100, 200))])
    checkpoint.commit([], [block("b1", part(file, 0, 100))])
    assert offsets(checkpoint) == {(file, "main"): 200}


def test_blocks_begun_are_there_after_a_restart_in_cut_order(checkpoint: Checkpoint, clock: HandClock) -> None:
    (file,) = checkpoint.add_files([file_row()])
    blocks = [block(name, part(file, i * 10, i * 10 + 10)) for i, name in enumerate(["z", "a", "m"])]
    checkpoint.commit(blocks, [])
    checkpoint.commit([block("x", part(file, 0, 10), output="other")], [])
    checkpoint.commit([blocks[0]], [blocks[1]])  # "z" is resumed after a crash: it keeps its place
    again = reopen(checkpoint, clock)
    resumed = again.inflight("main")
    assert [one.id for one in resumed] == ["z", "m"]
    assert resumed[1].parts == ((((file, 20, 30, ANCHOR),), "chain", "nginx", 1),)
    assert isinstance(resumed[1].parts[0].ranges[0], Range)
    assert resumed[1].observed_ns == 123
    assert [one.id for one in again.inflight("other")] == ["x"]
    again.drop_inflight("main")
    assert again.inflight("main") == []
    again.close()


def test_a_part_may_run_across_a_rotation(checkpoint: Checkpoint) -> None:
    old, new = checkpoint.add_files([file_row(), file_row(inode=2)])
    across = Part((Range(old, 90, 100, ANCHOR), Range(new, 0, 7, ANCHOR)), "chain", "nginx", b"", 1, 17)
    checkpoint.commit([], [block("b", across)])
    assert offsets(checkpoint) == {(old, "main"): 100, (new, "main"): 7}


def test_positions_can_be_set_back(checkpoint: Checkpoint) -> None:
    (file,) = checkpoint.add_files([file_row()])
    checkpoint.set_positions([(file, "main", 50, ANCHOR)])
    checkpoint.set_positions([(file, "main", 10, ANCHOR)])
    assert offsets(checkpoint) == {(file, "main"): 10}


def test_a_block_found_in_the_spool_is_committed_at_last(checkpoint: Checkpoint) -> None:
    (file,) = checkpoint.add_files([file_row()])
    sent = block("b1", part(file, 0, 100))
    checkpoint.commit([sent], [])
    assert checkpoint.reconcile_spool("main", [(Place(1, 0), header_of(sent))], (Place(0, 0), Place(1, 0))) == []
    assert offsets(checkpoint) == {(file, "main"): 100}
    assert checkpoint.inflight("main") == []


def test_a_spooled_block_without_its_row_moves_a_position_only_onwards(checkpoint: Checkpoint) -> None:
    before, gap, past = checkpoint.add_files(
        [file_row(inode=i, positions={"main": Position(offset, ANCHOR)}) for i, offset in enumerate([50, 40, 120])]
    )
    held = block("b1", *(part(file, 50, 100) for file in (before, gap, past)))
    assert checkpoint.reconcile_spool("main", [(Place(1, 0), header_of(held))], (Place(0, 0), Place(1, 0))) == []
    assert offsets(checkpoint) == {(before, "main"): 100, (gap, "main"): 40, (past, "main"): 120}


def test_a_file_named_by_a_block_in_flight_is_not_forgotten(checkpoint: Checkpoint) -> None:
    kept, gone, alive = checkpoint.add_files([file_row(gone_ns=1), file_row(inode=2, gone_ns=1), file_row(inode=3)])
    checkpoint.commit([block("b", part(kept, 0, 10))], [])
    checkpoint.set_positions([(gone, "main", 1, ANCHOR)])
    assert checkpoint.forget_files(older_than_ns=2) == 1
    assert [row.id for row in checkpoint.files()] == [kept, alive]
    assert offsets(checkpoint) == {}


def test_the_epoch_stays_as_long_as_the_database_does(checkpoint: Checkpoint, clock: HandClock) -> None:
    again = reopen(checkpoint, clock)
    assert again.epoch == checkpoint.epoch
    assert len(again.epoch) == 16
    assert again.notices() == []
    again.close()


def test_losses_are_counted_once_however_often_they_are_reported(checkpoint: Checkpoint) -> None:
    (file,) = checkpoint.add_files([file_row("/var/log/a\udcff.log")])
    known = Loss("nginx", "", file, 10, 30, LossReason.DELETED, 5)
    unknown = Loss("nginx", "/x", file, 30, None, LossReason.COPYTRUNCATE, 6, "main")
    checkpoint.add_losses([known, unknown])
    checkpoint.add_losses([unknown, known])
    found = checkpoint.losses()
    assert [(loss.path, loss.start, loss.end, loss.reason, loss.output) for loss in found] == [
        ("/var/log/a\udcff.log", 10, 30, "deleted", ""),
        ("/x", 30, None, "copytruncate", "main"),
    ]
    assert checkpoint.losses(source="other") == []
    assert checkpoint.loss_totals() == [
        LossTotal("nginx", "", "deleted", 1, 20, 0),
        LossTotal("nginx", "main", "copytruncate", 1, 0, 1),
    ]


def test_bytes_behind_the_position_are_still_in_their_file_and_no_loss(checkpoint: Checkpoint) -> None:
    (file,) = checkpoint.add_files([file_row(positions={"main": Position(50, ANCHOR)})])

    def lost(file: int, start: int, end: int) -> Loss:
        return Loss("nginx", "/p", file, start, end, LossReason.SPOOL_DAMAGED, 5, "main")

    checkpoint.add_losses([lost(file, 0, 20), lost(file, 40, 60), lost(file, 60, 70), lost(99, 1, 2)])
    assert [(loss.file, loss.start, loss.end) for loss in checkpoint.losses()] == [
        (file, 0, 20),
        (file, 40, 50),
        (99, 1, 2),
    ]


def test_old_lines_of_the_ledger_are_folded_into_exact_totals(checkpoint: Checkpoint) -> None:
    from hostagent.state import checkpoint as module

    count = module.LOSSES_KEPT + 50
    checkpoint.add_losses([Loss("s", "/p", 1, i, i + 2, LossReason.DELETED, 0) for i in range(count)])
    checkpoint.maintain()
    newest = checkpoint.losses(limit=count)
    assert len(newest) == module.LOSSES_KEPT
    assert newest[-1].start == count - 1
    assert checkpoint.loss_totals() == [LossTotal("s", "", "deleted", count, 2 * count, 0)]


def test_identity_survives_numbers_beyond_sqlites(checkpoint: Checkpoint) -> None:
    checkpoint.add_files([file_row(identity=FileId(2**63, 2**64 - 1, -1))])
    assert checkpoint.files()[0].identity == FileId(2**63, 2**64 - 1, -1)


def _with_id(row: object, id_: int) -> object:
    import msgspec

    return msgspec.structs.replace(row, id=id_)  # type: ignore[type-var]


def test_every_reason_for_a_loss_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "state.md").read_text()
    assert [reason for reason in LossReason if f"`{reason}`" not in manual] == []
