"""A spool can be listed, verified and read by another process while the agent uses it."""

import shutil
from pathlib import Path

import pytest

from hostagent.errors import StateError
from hostagent.state.spool.reading import list_blocks, read_block, spools
from hostagent.state.spool.spool import Spool
from tests.state.values import HandClock, Losses, block, delivery, flip, part, spool_config


def open_spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path, "main", spool_config(), HandClock(), Losses())


def put(spool: Spool, name: str) -> None:
    assert spool.append(block(name, part(1, 0, 10)), delivery(name, name.encode() * 10))


def test_what_waits_is_listed_while_the_agent_has_the_spool(tmp_path: Path) -> None:
    assert spools(tmp_path) == []
    spool = open_spool(tmp_path)
    for name in ("b1", "b2", "b3"):
        put(spool, name)
    spool.sync()
    put(spool, "being written")
    spool.head()
    spool.advance()
    (folder,) = spools(tmp_path)
    listed = list(list_blocks(folder, verify=True))
    assert [(one.header.id if one.header else None, one.damage) for one in listed] == [("b2", ""), ("b3", "")]
    found = read_block(listed[1])
    assert found.delivery == delivery("b3", b"b3" * 10)
    head = spool.head()
    assert head is not None
    assert head == read_block(listed[0])
    spool.close()


def test_a_damaged_segment_says_what_is_whole_and_what_is_not(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for name in ("b1", "b2", "b3"):
        put(spool, name)
    spool.sync()
    spool.close()
    (segment,) = (tmp_path / "spool" / "main").glob("*.seg")
    kept = tmp_path / f"20300101T000000Z-main-{segment.name}"
    shutil.copy(segment, kept)
    second = list(list_blocks(segment))[1]
    flip(kept, second.place.offset + second.bytes - 1)
    flip(kept, 5)
    assert [one.damage for one in list_blocks(segment, verify=True)] == ["", "", ""]
    listed = list(list_blocks(kept, verify=True))
    assert [one.header.id if one.header else None for one in listed] == [None, "b2", "b3"]
    assert [bool(one.damage) for one in listed] == [True, True, False]
    assert read_block(listed[2]).id == "b3"
    for damaged in listed[:2]:
        with pytest.raises(StateError, match="no sound block"):
            read_block(damaged)


def test_a_file_that_is_no_segment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(StateError, match="not the name of a segment"):
        list(list_blocks(tmp_path / "notes.txt"))
    with pytest.raises(StateError, match="can't read it"):
        list(list_blocks(tmp_path / "000000000001-0011223344556677.seg"))
