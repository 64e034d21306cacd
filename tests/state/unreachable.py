"""A checkpoint whose database can't be reached for a while, as on a disk that answers with errors."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.errors import StateError
from hostagent.state.checkpoint import Checkpoint
from tests.support.directories import no_more_descriptors


@contextlib.contextmanager
def database_out_of_reach(checkpoint: Checkpoint, data_dir: Path) -> Iterator[None]:
    """The checkpoint has given up its connection because of somebody's lock; within the context it gets no other."""
    with contextlib.closing(sqlite3.connect(data_dir / "checkpoint.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="locked"):
            checkpoint.commit([], [])
    with no_more_descriptors():
        with pytest.raises(StateError, match="unable to open"):
            checkpoint.commit([], [])
        yield
