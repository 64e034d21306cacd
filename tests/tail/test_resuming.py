"""What was in flight is cut again before anything else, however long the disk under the checkpoint makes it wait."""

import threading
from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.state.checkpoint import Checkpoint, SpoolChange
from hostagent.state.database.ledger import LossReason
from hostagent.state.rows import Position
from hostagent.state.spool.spooled import Place
from hostagent.tail.cutting import Cutter
from hostagent.tail.files.closed import ClosedFiles
from hostagent.tail.files.known import KnownRows
from hostagent.tail.files.openfiles import OpenFiles
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.places import Places
from hostagent.tail.recut import RETRY_S, Reclaiming
from hostagent.tail.tailer import TailedFile
from hostagent.tail.watching.watcher import Watcher
from tests.deliver.stage import ScriptedOutput, Stage
from tests.state.unreachable import database_out_of_reach
from tests.state.values import HandClock, block, file_row, part
from tests.support.waiting import wait_for


def cutter_of(checkpoint: Checkpoint, watcher: Watcher, clock: Clock) -> Cutter:
    """What cuts blocks again, with no file open and no target known."""
    open_files = OpenFiles({}, 10)
    registry = Registry(open_files, checkpoint, KnownRows(), clock)
    return Cutter(registry, ClosedFiles(open_files, checkpoint, Places(watcher)), clock)


def no_look(_tailed: TailedFile, _reached: Position) -> None:
    raise AssertionError("there is no file to look at")


def test_a_database_that_can_not_be_read_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, stop = Clock(), threading.Event()
    checkpoint = Checkpoint.open(tmp_path / "data", clock)
    (file,) = checkpoint.add_files([file_row()])
    checkpoint.commit([block("of a file that is gone", part(file, 0, 1))], [])
    lane = Stage(ScriptedOutput()).lane
    watcher = Watcher(clock)
    cutter = cutter_of(checkpoint, watcher, clock)
    with database_out_of_reach(checkpoint):
        resuming = threading.Thread(target=Reclaiming(cutter, checkpoint, clock).resume, args=([lane], no_look, stop))
        resuming.start()
        wait_for(lambda: "in flight wait" in caplog.text or not resuming.is_alive(), "a try")
        assert resuming.is_alive()
    resuming.join(20)
    assert checkpoint.inflight("main") == []
    assert [(loss.start, loss.end) for loss in checkpoint.losses()] == [(0, 1)]
    checkpoint.close()
    watcher.close()


def test_a_lost_block_of_a_file_whose_target_is_not_published_yet_waits_for_it(tmp_path: Path) -> None:
    """A container's runtime may not answer for a while. Afterwards what is not there is lost."""
    clock = HandClock()
    checkpoint = Checkpoint.open(tmp_path / "data", clock)
    (file,) = checkpoint.add_files([file_row()])
    spooled, place = block("lost", part(file, 0, 10)), Place(1, 0)
    checkpoint.commit([], [spooled], SpoolChange("main", [(place, spooled)], place, Place(1, 9)))
    checkpoint.lose_spooled("main", (place, Place(2, 0)), LossReason.SPOOL_MISSING)
    watcher = Watcher(clock)
    listed = threading.Event()
    reclaiming = Reclaiming(cutter_of(checkpoint, watcher, clock), checkpoint, clock, listed.is_set)
    lane = Stage(ScriptedOutput()).lane
    for _ in range(3):
        reclaiming.take([lane], no_look)
        assert checkpoint.reclaiming == {"main"}
        clock.now_s += RETRY_S
    listed.set()
    reclaiming.take([lane], no_look)
    assert checkpoint.reclaiming == set()
    assert [(loss.start, loss.end, loss.reason) for loss in checkpoint.losses()] == [(0, 10, "spool_missing")]
    checkpoint.close()
    watcher.close()
