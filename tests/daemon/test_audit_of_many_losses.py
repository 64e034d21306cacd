"""The ledger keeps a number of lines, and of all losses the totals: the audit must come out with the latter alone."""

import contextlib
import sqlite3
from pathlib import Path

from hostagent.clock import Clock
from hostagent.daemon.audit.audit import audit
from hostagent.daemon.audit.report import AuditReport
from hostagent.model import Loss
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.database import ledger
from tests.state.values import HandClock, block, file_row, part

FILES = 30


def look(folder: Path) -> AuditReport:
    return audit(folder, {}, lambda: None, Clock())


def test_losses_whose_lines_are_not_kept_are_lost_and_not_unaccounted(tmp_path: Path) -> None:
    """Of each file one output got all and another the first 40 bytes, before it was deleted."""
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    files = checkpoint.add_files([file_row(inode=1 + number, gone_ns=5) for number in range(FILES)])
    for file in files:
        checkpoint.set_positions([(file, "a", 0, b""), (file, "b", 0, b"")])
        checkpoint.commit([], [block(f"a{file}", part(file, 0, 100), output="a")])
        checkpoint.commit([], [block(f"b{file}", part(file, 0, 40), output="b")])
        checkpoint.add_losses([Loss("nginx", "", file, 40, 100, "deleted", 1, "b")])
    checkpoint.close()
    before = look(tmp_path)
    assert before.balanced
    with contextlib.closing(sqlite3.connect(tmp_path / "checkpoint.db")) as connection, connection:
        assert ledger.fold(connection, 10) == FILES - 10
    folded = look(tmp_path)
    assert (folded.balanced, folded.sources) == (True, before.sources)
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    assert checkpoint.forget_files(10) == FILES
    checkpoint.close()
    forgotten = look(tmp_path)
    assert (forgotten.balanced, forgotten.sources) == (True, before.sources)


def test_what_is_missing_besides_is_unaccounted(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path, HandClock())
    (file, other) = checkpoint.add_files([file_row(gone_ns=5), file_row(inode=2, gone_ns=5)])
    for one in (file, other):
        checkpoint.set_positions([(one, "a", 0, b""), (one, "b", 0, b"")])
        checkpoint.commit([], [block(f"a{one}", part(one, 0, 100), output="a")])
    checkpoint.add_losses([Loss("nginx", "", file, 0, 100, "deleted", 1, "b")])
    checkpoint.close()
    assert look(tmp_path).unaccounted == 100
    with contextlib.closing(sqlite3.connect(tmp_path / "checkpoint.db")) as connection, connection:
        assert ledger.fold(connection, 0) == 1
    assert look(tmp_path).unaccounted == 100
