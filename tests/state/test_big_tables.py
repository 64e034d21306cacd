"""What an outage leaves in the database may be a hundred thousand rows: work on one must not go through all of them.

Counted in steps of SQLite's own machine, which are the same on every machine.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostagent.state.checkpoint import Checkpoint, SpoolChange
from hostagent.state.spool.spooled import Place
from tests.state.values import HandClock, block, delivery, file_row, part

MANY = 3000


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    opened = Checkpoint.open(tmp_path, HandClock())
    opened.add_files([file_row()])
    yield opened
    opened.close()


def steps(checkpoint: Checkpoint, work: Callable[[], object]) -> int:
    """How many steps a piece of work takes, in hundreds."""
    count = 0

    def one_more() -> int:
        nonlocal count
        count += 1
        return 0

    connection = checkpoint._database._connection  # noqa: SLF001 - nobody else can count them
    connection.set_progress_handler(one_more, 100)
    work()
    connection.set_progress_handler(None, 0)
    return count


def lose(checkpoint: Checkpoint, output: str, count: int) -> None:
    """As many blocks of an output's spool that are to be taken back."""
    gone = [block(f"{output}{one}", part(1, one * 10, one * 10 + 10), output=output) for one in range(count)]
    checkpoint.commit([], gone, SpoolChange(output, (), Place(1, 0), Place(1, 0), gone))


def test_taking_a_block_back_does_not_look_through_those_of_an_output_that_is_down(checkpoint: Checkpoint) -> None:
    lose(checkpoint, "down", MANY)
    lose(checkpoint, "main", 2)

    def take_back() -> None:
        (reclaim,) = checkpoint.reclaims("main", 1)
        checkpoint.end_reclaim(reclaim, [])

    assert steps(checkpoint, take_back) < 20
    take_back()
    assert checkpoint.reclaiming == {"down"}


def test_forgetting_what_was_divided_goes_through_a_big_spool_once(checkpoint: Checkpoint) -> None:
    blocks = [block(f"b{one}", part(1, one * 10, one * 10 + 10)) for one in range(MANY)]
    added = [(Place(1, one), held) for one, held in enumerate(blocks)]
    checkpoint.commit([], blocks, SpoolChange("main", added, Place(1, 0), Place(1, MANY)))
    for one in range(200):
        checkpoint.note_divided("main", delivery(f"done{one}"))
    checkpoint.note_divided("main", delivery("b7"))
    assert steps(checkpoint, checkpoint.maintain) < MANY
    assert not checkpoint.was_divided(delivery("done7"))
    assert checkpoint.was_divided(delivery("b7"))
