"""What a backend found too large is remembered until its block is done with."""

from pathlib import Path

from hostagent.model import Delivery
from hostagent.state.checkpoint import Checkpoint, SpoolChange
from hostagent.state.spool.spooled import Place
from tests.state.values import HandClock, block, file_row, part


def delivery(block_id: str, piece: str = "") -> Delivery:
    return Delivery(block_id + piece, b"", "text/plain", "none", 2, 1, block_id)


def reopened(checkpoint: Checkpoint) -> Checkpoint:
    checkpoint.close()
    return Checkpoint.open(checkpoint.data_dir, HandClock())


def test_it_is_known_after_a_restart_for_as_long_as_its_block_is_in_flight(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    (file,) = checkpoint.add_files([file_row()])
    on_its_way = block("x", part(file, 0, 10))
    whole, piece, other = delivery("x"), delivery("x", ".r1"), delivery("y")
    checkpoint.commit([on_its_way], [])
    checkpoint.note_divided("main", whole)
    checkpoint.note_divided("main", piece)
    checkpoint = reopened(checkpoint)
    checkpoint.maintain()
    assert [checkpoint.was_divided(one) for one in (whole, piece, other)] == [True, True, False]
    checkpoint.commit([], [on_its_way])
    assert checkpoint.was_divided(piece)
    checkpoint.maintain()
    assert not any(map(checkpoint.was_divided, (whole, piece)))
    checkpoint = reopened(checkpoint)
    assert not checkpoint.was_divided(whole)
    checkpoint.close()


def test_it_is_known_for_as_long_as_its_block_is_spooled_or_to_be_taken_back(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    (file,) = checkpoint.add_files([file_row()])
    spooled, place = block("x", part(file, 0, 10)), Place(1, 0)
    checkpoint.commit([spooled], [])
    checkpoint.note_divided("main", delivery("x"))
    checkpoint.commit([], [spooled], SpoolChange("main", [(place, spooled)], place, Place(1, 9)))
    checkpoint.maintain()
    assert checkpoint.was_divided(delivery("x"))
    checkpoint.reconcile_spool("main", [], (place, place))
    assert checkpoint.reclaiming == {"main"}
    checkpoint.maintain()
    assert checkpoint.was_divided(delivery("x"))
    (reclaim,) = checkpoint.reclaims("main", 1)
    checkpoint.end_reclaim(reclaim, [])
    checkpoint.commit([], [spooled])
    checkpoint.maintain()
    assert not checkpoint.was_divided(delivery("x"))
    checkpoint.close()
