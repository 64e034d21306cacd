"""Files that came and went before anybody could open them: recognised by what was told of their names.

A name's events are read a moment after they happened, so a file may be created, written, moved and deleted before the
first of them is heard, and its name may be another file's when it is opened. Here each file that appeared is followed
through its names until it is sure which opened file it is. One that is deleted first, and was written to, is *missed*:
nobody will ever know what was in it, only that it was there. Files that stayed empty are nobody's loss. A file that was
linked to a second name and lost its first in the same moment is called missed although it is there: that can't be told
from two files, one of which is gone. Nothing is opened or written down here. The reader's thread alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from hostagent.clock import Clock
from hostagent.tail.files.identity import identify
from hostagent.tail.origin import Origin
from hostagent.tail.tailer import TailedFile

MEMORY_S = 1.0
"""How long a file is remembered after its last event. Its writes are heard later than its names, and in that time."""

MOST = 10_000
"""So many files are followed at once: whoever may create files can create a million between two looks."""


class Appeared:
    """One file that appeared: where it was to be read, its names so far, whether it was written to.

    `found` is the file that was opened under its name; it may be one that had the name later. `links` is how many names
    that had then.
    """

    __slots__ = ("found", "links", "names", "origin", "path", "until_s", "written")

    def __init__(self, path: str, origin: Origin, until_s: float, *, written: bool) -> None:
        self.path = path
        self.names = {path}
        self.origin = origin
        self.until_s = until_s
        self.written = written
        self.found: TailedFile | None = None
        self.links = 0


class Unseen:
    """The files that appeared a moment ago, by name; `take` hands out those that were missed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._here: dict[str, Appeared] = {}
        self._moving: dict[int, Appeared] = {}
        self._dead: dict[str, list[Appeared]] = {}
        self._early: dict[str, tuple[TailedFile, float]] = {}
        self._taken: dict[TailedFile, float] = {}
        self._missed: list[Appeared] = []

    def appeared(self, path: str, origin: Origin, *, written: bool) -> None:
        """A file that is wanted was created, or was moved here from where nobody watches and may have been written."""
        if len(self._here) < MOST:
            self._here[path] = Appeared(path, origin, self._clock.monotonic_s() + MEMORY_S, written=written)

    def left(self, path: str, cookie: int, opened: TailedFile | None) -> None:
        """A name was moved away; `opened` is the file that was opened under it last."""
        if (file := self._here.pop(path, None)) is not None:
            self._moving[cookie] = file
            self._note_early(path, file, opened)

    def arrived(self, path: str, cookie: int) -> bool:
        """A name was moved here, and whatever had it before is gone; whether it is a file that is followed."""
        self.deleted(path, None)
        file = self._moving.pop(cookie, None)
        if file is None:
            return False
        file.names.add(path)
        file.found = None
        self._here[path] = file
        return True

    def deleted(self, path: str, opened: TailedFile | None) -> None:
        """A name is gone for good; `opened` is the file that was opened under it last."""
        file = self._here.pop(path, None)
        if file is None:
            return
        found = file.found
        if found is None and path in self._early:
            found, _ = self._early.pop(path)
        self._note_early(path, file, opened)
        if found is not None and found not in self._taken and (not _links(found) or _has_lost(file, path)):
            self._taken[found] = file.until_s
        elif file.written:
            self._missed.append(file)
        else:
            for name in file.names:
                self._dead.setdefault(name, []).append(file)

    def _note_early(self, path: str, file: Appeared, opened: TailedFile | None) -> None:
        """What was opened under a name of this file and isn't it must be one that is only told of later."""
        if opened is not None and opened is not file.found:
            self._early[path] = (opened, self._clock.monotonic_s() + MEMORY_S)

    def written(self, path: str) -> None:
        """Somebody wrote to what has, or had, this name."""
        if (file := self._here.get(path)) is not None:
            file.written = True
        for dead in self._dead.pop(path, ()):
            if not dead.written:
                dead.written = True
                self._missed.append(dead)

    def settle(self, opened: Callable[[str], TailedFile | None], is_none_of_ours: Callable[[str], bool]) -> None:
        """All events of a look are in, and what their names lead to now was opened.

        A file that has been found is followed on until the next look: only then has everything been heard that
        happened before it was opened.
        """
        if not (self._here or self._moving or self._dead or self._early or self._taken):
            return
        now_s = self._clock.monotonic_s()
        for path, file in list(self._here.items()):
            if file.found is not None:
                self._taken[file.found] = now_s + MEMORY_S
                del self._here[path]
            elif is_none_of_ours(path):
                del self._here[path]
            elif (found := opened(path)) is not None:
                file.found, file.links = found, _links(found)
            elif now_s >= file.until_s:
                del self._here[path]
        for cookie, file in list(self._moving.items()):
            if now_s >= file.until_s:
                del self._moving[cookie]
                if file.found is None and file.written:
                    self._missed.append(file)
        for name, files in list(self._dead.items()):
            if left := [file for file in files if now_s < file.until_s and not file.written]:
                self._dead[name] = left
            else:
                del self._dead[name]
        self._early = {path: early for path, early in self._early.items() if now_s < early[1]}
        self._taken = {found: until_s for found, until_s in self._taken.items() if now_s < until_s}

    def take(self) -> list[Appeared]:
        """The files that were missed since the last call."""
        missed, self._missed = self._missed, []
        return missed


def _links(tailed: TailedFile) -> int:
    return 0 if tailed.content is None else identify(tailed.content.fd).nlink


def _has_lost(file: Appeared, path: str) -> bool:
    """Whether the file that was opened under a name has lost that one, and goes on under another that it had, too.

    It has fewer names than it had when it was opened, or than are known of it.
    """
    if file.found is None or _links(file.found) >= max(file.links, len({path, *file.found.paths})):
        return False
    try:
        return os.lstat(path).st_ino != file.found.identity.inode
    except OSError:
        return True
