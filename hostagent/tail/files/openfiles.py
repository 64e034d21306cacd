"""Descriptors: opened at once when a file appears, held while something is unread, closed least recently used first.

Owns the bound on open files, and has those that it closes listened to. It opens beneath the target's root only, and
believes a path again only if the same file is still behind it.
"""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from hostagent.hookspecs import Content, Tailer
from hostagent.tail.files.contents import FileContent
from hostagent.tail.files.identity import OpenFile, identify, same_file
from hostagent.tail.finding.beneath import beneath, open_beneath
from hostagent.tail.origin import Origin
from hostagent.tail.tailer import PLAIN, TailedFile
from hostagent.tail.watching.idle import IdleWatches

# Database, sockets, inotify, spools and dead letters of a handful of outputs, and what comes and goes.
_OWN = 64


class Opened(NamedTuple):
    """A file behind a path right now: its content and what the kernel says of it."""

    content: Content
    status: OpenFile


class OpenFiles:
    """The descriptors of all tailed files. `most` is the bound; the excess waits for a file that can be closed."""

    def __init__(self, tailers: Mapping[str, Tailer], most: int | None) -> None:
        self.tailers = tailers
        self.idle = IdleWatches()
        self._most = most if most is not None else _share_of(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._open: OrderedDict[TailedFile, None] = OrderedDict()

    def __len__(self) -> int:
        """How many files are open."""
        return len(self._open)

    def open_path(self, origin: Origin, path: str, storage: str = PLAIN) -> Opened:
        """Open what is behind a path of the target now. Raises OSError, or what `open_beneath` says of the file."""
        fd = open_beneath(origin.target.root, beneath(origin.target.root, path))
        try:
            return Opened(self._wrap(fd, storage), identify(fd))
        except BaseException:
            os.close(fd)
            raise

    def storage_of(self, name: str, content: Content) -> str:
        """How a file's bytes are stored, by its name and its first bytes: the name of the tailer that reads it."""
        head = content.read(0, 16)
        for storage, tailer in self.tailers.items():
            if storage != PLAIN and tailer.recognises(name, head):
                return storage
        return PLAIN

    def take(self, tailed: TailedFile, content: Content) -> None:
        """Keep a content for a file, closing the least recently used idle one when there are too many."""
        tailed.content = content
        self._open[tailed] = None
        self.idle.forget(tailed.identity)
        if len(self._open) > self._most:
            self._close_one(tailed)

    def ensure(self, tailed: TailedFile) -> bool:
        """Have the file open; False when its path leads to another file or to none. Raises OSError."""
        if tailed.content is not None:
            self._open.move_to_end(tailed)
            return True
        try:
            opened = self.open_path(tailed.origin, tailed.path, tailed.storage)
        except FileNotFoundError:
            return False
        if not same_file(opened.status.id, tailed.identity):
            opened.content.close()
            return False
        self.take(tailed, opened.content)
        return True

    def give(self, tailed: TailedFile, successor: TailedFile) -> None:
        """Hand a file's descriptor to the generation that follows it in the same file."""
        content = tailed.content
        assert content is not None
        self._open.pop(tailed, None)
        tailed.content = None
        self.take(successor, content)

    def release(self, tailed: TailedFile) -> None:
        """Close the file's descriptor."""
        self._open.pop(tailed, None)
        tailed.close()
        self.idle.forget_file(tailed)

    def close(self) -> None:
        """At the end of the agent: nobody is listened to any more."""
        self.idle.close()

    def _wrap(self, fd: int, storage: str) -> Content:
        return FileContent(fd) if storage == PLAIN else self.tailers[storage].open(fd)

    def _close_one(self, fresh: TailedFile) -> None:
        """Close the file that was read longest ago among those with nothing unread.

        If every file has something unread (at a first start, say), one that has a path to be opened by again; never
        the one that was just opened to be read. A deleted file has no such path: it stays, even past the bound.
        """
        others = [tailed for tailed in self._open if tailed is not fresh]
        # What was written or deleted a moment ago may not have been heard yet.
        idle = (one for one in others if not (one.unread or one.queued or one.ended) and _is_read(one))
        placed = (one for one in others if not one.ended and _has_name(one))
        oldest = next(idle, None) or next(placed, None) or next((one for one in others if _has_name(one)), None)
        if oldest is not None:
            self.idle.add(oldest)
            self._open.pop(oldest)
            oldest.close()


def _is_read(tailed: TailedFile) -> bool:
    return _has_name(tailed) and tailed.size() in (None, tailed.head)


def _has_name(tailed: TailedFile) -> bool:
    return tailed.content is not None and identify(tailed.content.fd).nlink > 0


def _share_of(limit: int) -> int:
    """How many of the process's descriptors may be log files: the rest of the agent needs some dozens."""
    return max(limit // 4, min(limit * 3 // 4, limit - _OWN))
