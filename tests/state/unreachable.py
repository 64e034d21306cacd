"""A checkpoint whose database can't be reached for a while, as on a disk that answers with errors."""

import contextlib
from collections.abc import Iterator

import pytest

from hostagent.errors import StateError
from hostagent.state.checkpoint import Checkpoint
from tests.state.values import file_row
from tests.support.directories import no_larger_files, no_more_descriptors


@contextlib.contextmanager
def database_out_of_reach(checkpoint: Checkpoint) -> Iterator[None]:
    """The checkpoint has given up its connection after a write that failed; within the context it gets no other."""
    with no_larger_files(), pytest.raises(StateError):
        checkpoint.add_files([file_row()])
    with no_more_descriptors():
        with pytest.raises(StateError, match="unable to open"):
            checkpoint.commit([], [])
        yield
