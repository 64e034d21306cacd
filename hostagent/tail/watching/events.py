"""What can happen in a watched directory, in the same words whether the kernel said so or a comparison found it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """The kinds of event."""

    CREATED = "created"
    MODIFIED = "modified"
    CLOSED = "closed"  # a descriptor that was open for writing is gone; there may be others
    MOVED_FROM = "moved_from"
    MOVED_TO = "moved_to"
    DELETED = "deleted"
    DIRECTORY_GONE = "directory_gone"  # no longer watched: deleted, moved or unmounted; watch the path again
    OVERFLOW = "overflow"  # events were lost, in any directory: look at everything again


class Event(NamedTuple):
    """One event. `directory` is the path as it was given to `watch`; `name` is empty where the directory is meant.

    The two halves of a rename share a `cookie` other than 0. A name may be that of a file which was unlinked or
    replaced meanwhile: its last writers are still heard under it.
    """

    kind: Kind
    directory: str
    name: str = ""
    cookie: int = 0
    is_dir: bool = False
