"""What the kernel tells of files that are closed: written to, deleted, or neither."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from hostagent.model import Target
from hostagent.tail.files.contents import FileContent
from hostagent.tail.files.identity import identify
from hostagent.tail.origin import Origin, Policy
from hostagent.tail.ports import Chain
from hostagent.tail.tailer import TailedFile
from hostagent.tail.watching.idle import IdleWatches

ORIGIN = Origin(
    Target(id="app", source="app", paths=("/*",)),
    cast("Chain", None),
    (),
    {},
    Policy("beginning", None, 0.2, drop_page_cache=False),
)


@pytest.fixture
def idle() -> Iterator[IdleWatches]:
    watches = IdleWatches(2)
    yield watches
    watches.close()


def closed(idle: IdleWatches, path: Path, unread_bytes: int = 0) -> TailedFile:
    """A file that was read as far as that, and closed."""
    path.write_text("a line\n")
    fd = os.open(path, os.O_RDONLY)
    tailed = TailedFile(str(path), identify(fd).id, ORIGIN, seen_ns=0)
    tailed.cursors[0].offset = identify(fd).size - unread_bytes
    tailed.content = FileContent(fd)
    idle.add(tailed)
    tailed.close()
    return tailed


def append(path: str) -> None:
    with open(path, "a", encoding="utf-8") as log:
        log.write("more\n")


def test_a_file_is_quiet_until_somebody_writes_to_it_under_whatever_name(idle: IdleWatches, tmp_path: Path) -> None:
    tailed = closed(idle, tmp_path / "a")
    os.link(tailed.path, tmp_path / "b")
    os.unlink(tailed.path)
    assert idle.is_quiet(tailed)
    assert not idle.is_dead(tailed)
    append(str(tmp_path / "b"))
    assert not idle.is_quiet(tailed)


def test_it_is_dead_when_its_last_user_lets_go(idle: IdleWatches, tmp_path: Path) -> None:
    tailed = closed(idle, tmp_path / "a")
    with open(tailed.path, encoding="utf-8"):
        os.unlink(tailed.path)
        assert not idle.is_dead(tailed)
    assert idle.is_dead(tailed)
    assert idle.is_quiet(tailed)


def test_nothing_is_known_of_a_file_with_unread_bytes(idle: IdleWatches, tmp_path: Path) -> None:
    assert not idle.is_quiet(closed(idle, tmp_path / "a", unread_bytes=1))


def test_nothing_is_known_of_a_file_that_is_read_again(idle: IdleWatches, tmp_path: Path) -> None:
    tailed = closed(idle, tmp_path / "a")
    idle.forget(tailed.identity)
    assert not idle.is_quiet(tailed)


def test_who_is_over_is_told_of_when_it_is_written_to(idle: IdleWatches, tmp_path: Path) -> None:
    one, other = closed(idle, tmp_path / "a"), closed(idle, tmp_path / "b")
    for tailed in (one, other):
        idle.outlive(tailed)
        idle.forget_file(tailed)
    assert idle.any_over
    assert idle.take_late() == []
    os.unlink(other.path)
    append(one.path)
    assert idle.take_late() == [one]
    assert not idle.any_over


def test_beyond_the_bound_who_is_over_makes_room_and_is_told_of_then(idle: IdleWatches, tmp_path: Path) -> None:
    first = closed(idle, tmp_path / "a")
    second = closed(idle, tmp_path / "b")
    assert not idle.is_quiet(closed(idle, tmp_path / "c"))
    idle.outlive(first)
    assert idle.is_quiet(closed(idle, tmp_path / "d"))
    assert idle.take_late() == [first]
    assert idle.is_quiet(second)


def test_as_many_events_as_there_can_be_fit_into_the_queue(tmp_path: Path) -> None:
    idle = IdleWatches()
    files = [closed(idle, tmp_path / str(number)) for number in range(6000)]
    heard = [tailed for tailed in files if idle.is_quiet(tailed)]
    assert heard
    for tailed in files:
        os.unlink(tailed.path)
    assert all(idle.is_dead(tailed) for tailed in heard)
    idle.close()
