"""A block's id names its bytes, and a block is cut when it is full or due."""

from __future__ import annotations

import msgspec
import pytest

from hostagent.deliver.blocks import BlockBuilder, block_id
from hostagent.model import Range
from tests.deliver.stage import part


def builder(max_bytes: int = 100, output: str = "main") -> BlockBuilder:
    return BlockBuilder(output=output, epoch="e", encoder_key="k", max_bytes=max_bytes, max_wait_s=0.5)


def the_id(**changes: object) -> str:
    values = {"epoch": "e", "output": "main", "encoder_key": "k", "observed_ns": 5, "parts": (part(b"one"),)} | changes
    return block_id(**values)  # type: ignore[arg-type]


def test_the_same_ranges_give_the_same_id_in_another_process() -> None:
    gathering = builder()
    gathering.open(5, 0.0)
    gathering.add(part(b"one"))
    block = gathering.cut()

    assert block is not None
    assert block.id == the_id()
    assert block.id == "62141be4ceef36bad5a719cdaf471e49"


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": "f"},
        {"output": "other"},
        {"encoder_key": "raw"},
        {"observed_ns": 6},
        {"parts": (part(b"one", file=2),)},
        {"parts": (part(b"one", start=4),)},
        {"parts": (part(b"one"), part(b"one", start=4))},
        {"parts": (msgspec.structs.replace(part(b"one"), chain="other"),)},
        {"parts": (msgspec.structs.replace(part(b"one"), ranges=(Range(1, 0, 4, b"b" * 16),)),)},
        {"epoch": "em", "output": "ain"},
    ],
)
def test_whatever_decides_the_bytes_changes_the_id(changes: dict[str, object]) -> None:
    assert the_id(**changes) != the_id()


def test_a_block_is_cut_by_the_part_that_fills_it() -> None:
    gathering = builder(max_bytes=10)
    gathering.open(1, 0.0)
    assert gathering.add(part(b"1234")) is None
    block = gathering.add(part(b"5678"))

    assert block is not None
    assert (block.records, block.encoded_bytes, block.observed_ns) == (2, 10, 1)
    assert gathering.observed_ns is None


def test_a_block_is_due_by_the_time_it_was_opened() -> None:
    gathering = builder()
    assert gathering.due_in_s(10.0) is None
    assert gathering.open(1, 10.0) == 1
    assert gathering.open(2, 10.2) == 1, "an open block keeps its time"
    assert gathering.due_in_s(10.2) == pytest.approx(0.3)
    assert gathering.due_in_s(11.0) == 0.0


def test_a_block_without_parts_is_no_block() -> None:
    gathering = builder()
    gathering.open(1, 0.0)
    assert gathering.cut() is None
    assert gathering.open(2, 1.0) == 2


def test_a_part_without_an_open_block_is_refused() -> None:
    with pytest.raises(ValueError, match="not open"):
        builder().add(part(b"one"))
