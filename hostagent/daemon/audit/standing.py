"""What of a known file can be read right now: found by its identity, believed by its content.

For the audit, which must not take the agent's word: a path counts only if the same inode with the same first bytes and
the same bytes before every position is behind it. It opens nothing but regular files, and only to read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping

from hostagent.hookspecs import Content, Tailer
from hostagent.model import FileId
from hostagent.observe.report import FileReport
from hostagent.state.rows import FileRow, Position
from hostagent.tail.files.identity import anchor_holds, fingerprint, identify, same_file
from hostagent.tail.files.known import furthest
from hostagent.tail.files.lineage import Lost, find_continuation
from hostagent.tail.tailer import NO_ANCHOR, PLAIN

STEP_BYTES = 1024 * 1024
MOST_DECODED_BYTES = 4 * 1024 * 1024 * 1024


class Standing:
    """Looks for the files of some rows. `ask` gives what a running agent holds open, None when none answers."""

    def __init__(
        self,
        rows: Iterable[FileRow],
        tailers: Mapping[str, Tailer],
        ask: Callable[[], Iterable[FileReport] | None],
    ) -> None:
        self._tailers = tailers
        self._ask = ask
        self._held: dict[tuple[int, int, int, str], int] | None = None
        self._newest: dict[FileId, int] = {}
        for row in rows:
            if row.gone_ns is None:
                self._newest[row.identity] = max(row.generation, self._newest.get(row.identity, 0))

    def readable_bytes(self, row: FileRow) -> int | None:
        """How many bytes of the generation can be read; None when nobody has it any more."""
        if row.gone_ns is not None:
            return None
        for look in (self._at_its_path, self._elsewhere, self._in_the_agent):
            found = look(row)
            if found is not None:
                return found
        return None

    def _at_its_path(self, row: FileRow) -> int | None:
        if self._newest[row.identity] != row.generation:
            return None  # a later generation has taken the file over
        try:
            # Opened for nothing but to ask what it is: a device or a FIFO must not notice.
            fd = os.open(row.path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            status = identify(fd)
            if not same_file(row.identity, status.id) or not stat.S_ISREG(status.mode):
                return None
            content = self._open(f"/proc/self/fd/{fd}", row.storage)
        except OSError:
            return None
        finally:
            os.close(fd)
        try:
            holds = _holds(row, content)
            return self._size(content, row.storage) if holds else None
        except OSError:
            return None
        finally:
            content.close()

    def _elsewhere(self, row: FileRow) -> int | None:
        """Renamed, copied or compressed since the row was written, which the agent has still to find out."""
        position = furthest(row.positions) or Position(0, NO_ANCHOR)
        directory, name = os.path.split(row.path)
        lost = Lost(directory, name, row.identity, row.fingerprint, position.offset, position.anchor)
        others = {identity for identity in self._newest if identity != row.identity}
        if self._newest[row.identity] != row.generation:
            others.add(row.identity)
        found = find_continuation(lost, self._tailers, owned=others)
        if found is None:
            return None
        try:
            return self._size(found.content, found.storage)
        except OSError:
            return None
        finally:
            found.content.close()

    def _in_the_agent(self, row: FileRow) -> int | None:
        """Deleted, and held open until it is read."""
        if self._held is None:
            self._held = {
                (file.device, file.inode, file.generation, file.source): file.size_bytes or 0
                for file in self._ask() or ()
            }
        return self._held.get((row.identity.device, row.identity.inode, row.generation, row.source))

    def _open(self, path: str, storage: str) -> Content:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return self._tailers[storage if storage in self._tailers else PLAIN].open(fd)

    def _size(self, content: Content, storage: str) -> int:
        if storage == PLAIN:
            return identify(content.fd).size
        size = 0
        while size < MOST_DECODED_BYTES and (data := content.read(size, STEP_BYTES)):
            size += len(data)
        return size


def _holds(row: FileRow, content: Content) -> bool:
    if fingerprint(content, row.fingerprint) is None:
        return False
    return all(anchor_holds(content, position.offset, position.anchor) for position in row.positions.values())
