"""Files that came and went before anybody could open them: recognised by what was told of their names.

A name's events are read a moment after they happened, so a file may be created, written, moved and deleted before the
first of them is heard. Here each file that appeared is followed through its names until it is opened. One that is
deleted first, and was written to, is *missed*: nobody will ever know what was in it, but that it was there. Files that
stayed empty are nobody's loss. One that was given a second name and lost its first in the same moment is told of in
vain. Nothing is opened or written down here. The reader's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable

from hostagent.clock import Clock
from hostagent.tail.origin import Origin

MEMORY_S = 1.0
"""How long a file is remembered after its last event. Its writes are heard later than its names, and in that time."""

MOST = 10_000
"""So many files are followed at once: whoever may create files can create a million between two looks."""


class Unopened:
    """One file that appeared: where it was to be read, its names so far, and whether it was written to."""

    __slots__ = ("names", "origin", "path", "until_s", "written")

    def __init__(self, path: str, origin: Origin, until_s: float) -> None:
        self.path = path
        self.names = {path}
        self.origin = origin
        self.until_s = until_s
        self.written = False


class Unseen:
    """The files that nobody has opened yet, by name; `take` hands out those that were missed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._here: dict[str, Unopened] = {}
        self._moving: dict[int, Unopened] = {}
        self._dead: dict[str, list[Unopened]] = {}
        self._missed: list[Unopened] = []

    def appeared(self, path: str, origin: Origin, *, written: bool) -> None:
        """A file that is wanted was created and can't be opened any more, or was moved here, written before maybe."""
        if len(self._here) < MOST:
            file = self._here[path] = Unopened(path, origin, self._clock.monotonic_s() + MEMORY_S)
            file.written = written

    def left(self, path: str, cookie: int) -> None:
        """A name was moved away."""
        if (file := self._here.pop(path, None)) is not None:
            self._moving[cookie] = file

    def arrived(self, path: str, cookie: int) -> bool:
        """A name was moved here, and whatever had it before is gone; whether it is a file that is followed."""
        self.deleted(path)
        file = self._moving.pop(cookie, None)
        if file is None:
            return False
        file.names.add(path)
        self._here[path] = file
        return True

    def deleted(self, path: str) -> None:
        """A name is gone for good."""
        file = self._here.pop(path, None)
        if file is None:
            return
        if file.written:
            self._missed.append(file)
        else:
            for name in file.names:
                self._dead.setdefault(name, []).append(file)

    def replaced(self, path: str, origin: Origin) -> None:
        """A file that was created is gone, and what is there now under its name is known already."""
        self.appeared(path, origin, written=False)
        self.deleted(path)

    def written(self, path: str) -> None:
        """Somebody wrote to what has, or had, this name."""
        if (file := self._here.get(path)) is not None:
            file.written = True
        for dead in self._dead.pop(path, ()):
            if not dead.written:
                dead.written = True
                self._missed.append(dead)

    def settle(self, is_found: Callable[[str], bool]) -> None:
        """Once all events of a look are in: files whose names lead to something were found, the old are forgotten."""
        if not (self._here or self._moving or self._dead):
            return
        now_s = self._clock.monotonic_s()
        self._here = {path: file for path, file in self._here.items() if now_s < file.until_s and not is_found(path)}
        self._moving = {cookie: file for cookie, file in self._moving.items() if now_s < file.until_s}
        for path, files in list(self._dead.items()):
            left = [file for file in files if now_s < file.until_s and not file.written]
            if left:
                self._dead[path] = left
            else:
                del self._dead[path]

    def take(self) -> list[Unopened]:
        """The files that were missed since the last call."""
        missed, self._missed = self._missed, []
        return missed
