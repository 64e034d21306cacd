"""A log that was there when its target was declared, and gone before it could be opened: its loss is not silent."""

import glob
import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostagent.model import Loss
from tests.support.follower import Follower, Store
from tests.tail.clock import HandClock


@contextmanager
def followed(tmp_path: Path, log: Path, *, promised: bool = True) -> Iterator[Follower]:
    """A follower of a container's log and of its rotations."""
    path = glob.escape(str(log))
    follower = Follower(tmp_path / "state", (path, path + ".[0-9]*"), Store(), HandClock(), 10, promised=promised)
    try:
        yield follower
    finally:
        follower.kill()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "[logs]").mkdir()
    return tmp_path / "[logs]" / "0.log"


def losses_of_removal(follower: Follower) -> list[Loss]:
    """What is in the ledger when the target is gone, and was there a moment longer for somebody else."""
    follower.reader.post(lambda: follower.reader.drop_target("app"))
    follower.settle(1.0)
    return follower.losses()


def test_a_log_that_nobody_could_open_is_in_the_ledger(tmp_path: Path, log: Path) -> None:
    with followed(tmp_path, log) as follower:
        follower.look(3)
        (loss,) = losses_of_removal(follower)
        assert (loss.reason, loss.path, loss.start, loss.end) == ("unseen", str(log), 0, None)
        assert losses_of_removal(follower) == [loss], "once"


def test_a_target_that_promised_nothing_lost_nothing(tmp_path: Path, log: Path) -> None:
    with followed(tmp_path, log, promised=False) as follower:
        follower.look(3)
        assert losses_of_removal(follower) == []


def deleted(log: Path) -> None:
    log.unlink()


def rotated(log: Path) -> None:
    log.rename(f"{log}.1")


@pytest.mark.parametrize("end", [deleted, rotated])
@pytest.mark.parametrize("late", [False, True])
def test_a_log_that_was_read_is_not_missed(tmp_path: Path, log: Path, late: bool, end: Callable[[Path], None]) -> None:
    if not late:
        log.write_text("one\n")
    with followed(tmp_path, log) as follower:
        follower.look(3)
        log.write_text("one\n")
        follower.settle(1.0)
        end(log)
        follower.settle(2.0)
        assert follower.output.idle()
        assert losses_of_removal(follower) == []


def test_a_log_that_can_not_be_read_is_told_of_otherwise(tmp_path: Path, log: Path) -> None:
    log.write_bytes(gzip.compress(b"one\n"))
    with followed(tmp_path, log) as follower:
        follower.look(3)
        assert follower.reader.notices()
        assert losses_of_removal(follower) == []
