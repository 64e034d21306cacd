"""What the reader's files look like from outside: plain values, made in the reader's thread, read in any.

`status`, `files`, `explain` and the metrics are built from these. Nothing here changes a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hostagent.hookspecs import Notice
from hostagent.model import FileId, Scalar
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.places import Places
from hostagent.tail.reader import Reader
from hostagent.tail.tailer import TailedFile


class FileView(NamedTuple):
    """One file generation. `positions` are what each output has acked, `head` is how far the furthest has been read."""

    path: str
    source: str
    target: str
    state: str  # "reading" | "idle" | "draining" | "suspended"
    size: int
    head: int
    positions: Mapping[str, int]
    identity: FileId
    generation: int
    storage: str
    tags: Mapping[str, Scalar]
    is_open: bool
    behind_since_s: float | None

    def behind(self, output: str) -> int:
        """Bytes of the file that the output has not acked."""
        return max(0, self.size - self.positions.get(output, 0))


class Overview(NamedTuple):
    """The registry at one moment."""

    files: tuple[FileView, ...]
    targets: Mapping[str, int]  # by source
    directories: int
    polled: int
    overflows: int
    rescans: int
    notices: tuple[Notice, ...]


def overview(registry: Registry, places: Places, reader: Reader) -> Overview:
    """Look at everything. In the reader's thread."""
    targets: dict[str, int] = {}
    for place in places.by_id.values():
        source = place.origin.target.source
        targets[source] = targets.get(source, 0) + 1
    return Overview(
        files=tuple(view(tailed) for tailed in registry.all_files()),
        targets=targets,
        directories=places.directories,
        polled=places.polled,
        overflows=reader.sightings.overflows,
        rescans=reader.sightings.rescans,
        notices=tuple(reader.notices()),
    )


def view(tailed: TailedFile) -> FileView:
    """One file as it is now. A file whose descriptor is closed has been read to its end."""
    size = tailed.size()
    acked = tailed.acked or {}
    if tailed.suspended:
        state = "suspended"
    elif tailed.ended:
        state = "draining"
    else:
        state = "reading" if tailed.unread or tailed.queued else "idle"
    return FileView(
        path=tailed.path,
        source=tailed.origin.target.source,
        target=tailed.origin.target.id,
        state=state,
        size=tailed.head if size is None else size,
        head=tailed.head,
        positions={lane.name: acked.get(lane.name, 0) for lane in tailed.origin.lanes},
        identity=tailed.identity,
        generation=tailed.generation,
        storage=tailed.storage,
        tags={**tailed.tags, "path": tailed.recorded_path},
        is_open=tailed.content is not None,
        behind_since_s=tailed.behind_since_s,
    )
