"""What was in flight is cut again before anything else, however long the disk under the checkpoint makes it wait."""

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.errors import StateError
from hostagent.state.checkpoint import Checkpoint
from hostagent.tail.files.known import KnownRows
from hostagent.tail.files.openfiles import OpenFiles
from hostagent.tail.files.registry import Registry
from hostagent.tail.recut import resume_inflight
from tests.deliver.stage import ScriptedOutput, Stage
from tests.state.values import block, file_row, part
from tests.support.directories import no_more_descriptors
from tests.support.waiting import wait_for


def test_a_database_that_can_not_be_read_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, stop = Clock(), threading.Event()
    checkpoint = Checkpoint.open(tmp_path / "data", clock)
    (file,) = checkpoint.add_files([file_row()])
    checkpoint.commit([block("of a file that is gone", part(file, 0, 1))], [])
    registry = Registry(OpenFiles({}, 10), checkpoint, KnownRows(), clock)
    lane = Stage(ScriptedOutput()).lane
    with contextlib.closing(sqlite3.connect(tmp_path / "data/checkpoint.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="locked"):
            checkpoint.commit([], [])
    with no_more_descriptors():
        with pytest.raises(StateError, match="unable to open"):
            checkpoint.commit([], [])
        resuming = threading.Thread(target=resume_inflight, args=(registry, checkpoint, (lane,), clock, stop))
        resuming.start()
        wait_for(lambda: "in flight wait" in caplog.text or not resuming.is_alive(), "a try")
        assert resuming.is_alive()
    resuming.join(20)
    assert checkpoint.inflight("main") == []
    assert [(loss.start, loss.end) for loss in checkpoint.losses()] == [(0, 1)]
    checkpoint.close()
