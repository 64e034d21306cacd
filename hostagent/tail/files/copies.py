"""Files that may be logrotate's copies: not read until it is clear what they are.

`copytruncate` makes a second file with the same bytes, then empties the first. Reading both would deliver everything
twice; so a new file whose name is built on a tailed file's name and which begins with the same bytes is only watched.
Either the tailed file is truncated soon, and its generation goes on in the copy; or it isn't, and these are two files.
Until then it is followed through its names, and held open for a last look should it be deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hostagent.clock import Clock
from hostagent.hookspecs import Notice
from hostagent.model import FileId
from hostagent.tail.files.contents import FileContent
from hostagent.tail.files.identity import ANCHOR_BYTES, FINGERPRINT_BYTES, anchor_holds, begins_as, identify
from hostagent.tail.files.openfiles import Opened
from hostagent.tail.files.registry import Registry
from hostagent.tail.origin import Origin
from hostagent.tail.tailer import TailedFile

PATIENCE_S = 10.0
"""How long after it was last seen growing towards its original a copy may wait for the truncate."""

LOOK_S = 1.0

MOST = 256
"""So many suspects of a target are looked at again and again; what comes beyond counts as its own at once."""

MOST_HELD = 16
"""So many are held open; of what comes beyond nobody knows how it ended, if it is deleted."""


class Suspect(NamedTuple):
    """A path that may be a copy of one of the `elders`, its size when last looked at, and when it counts as its own.

    While it is empty they are several, and the right one may have another name by the time that shows. `content` is for
    a last look.
    """

    origin: Origin
    identity: FileId
    elders: tuple[TailedFile, ...]
    size: int
    until_s: float
    content: FileContent | None

    def let_go(self) -> None:
        """Hold it open no longer."""
        if self.content is not None:
            self.content.close()


class Moving(NamedTuple):
    """A suspect that is not at its path any more, and when it is no use waiting for another one."""

    path: str
    suspect: Suspect
    until_s: float


class Copies:
    """The suspects, by path, and those that were moved a moment ago, by identity."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._suspects: dict[str, Suspect] = {}
        self._moving: dict[FileId, Moving] = {}
        self._look_at_s: float | None = None

    def suspect(self, origin: Origin, path: str, opened: Opened) -> bool:
        """Whether a file that just appeared may be a copy in the making; if so, keep an eye on its path."""
        if self.follow(path, opened):
            return True
        elders = self._originals(self._elders(origin, path), opened)
        if not elders or sum(suspect.origin is origin for suspect in self._suspects.values()) >= MOST:
            return False
        now_s = self._clock.monotonic_s()
        self.moved(path)
        content = FileContent(os.dup(opened.content.fd)) if self._held() < MOST_HELD else None
        status = opened.status
        self._suspects[path] = Suspect(origin, status.id, elders, status.size, now_s + PATIENCE_S, content)
        if self._look_at_s is None:
            self._look_at_s = now_s + LOOK_S
        return True

    def watches(self, path: str) -> bool:
        """Whether the path is under suspicion."""
        return path in self._suspects

    def _held(self) -> int:
        suspects = [*self._suspects.values(), *(moving.suspect for moving in self._moving.values())]
        return sum(suspect.content is not None for suspect in suspects)

    def gone(self, path: str) -> None:
        """The path has been taken over by the generation it was copied from, or is no suspect's any more."""
        suspect = self._suspects.pop(path, None)
        if suspect is not None:
            suspect.let_go()

    def moved(self, path: str) -> None:
        """What stood at the path has another name, which is told of soon, or went where nobody watches."""
        suspect = self._suspects.pop(path, None)
        if suspect is not None:
            former = self._moving.pop(suspect.identity, None)
            if former is not None:
                former.suspect.let_go()
            self._moving[suspect.identity] = Moving(path, suspect, self._clock.monotonic_s() + LOOK_S)

    def follow(self, path: str, opened: Opened) -> bool:
        """Whether what was moved to a path is under suspicion; then the path is, from now on."""
        moving = self._moving.pop(opened.status.id, None)
        if moving is None:
            return False
        self.moved(path)
        self._suspects[path] = moving.suspect
        return True

    def deleted(self, path: str) -> TailedFile | None:
        """The path is gone for good; the file it was, if that was one of its own."""
        suspect = self._suspects.pop(path, None)
        return None if suspect is None else self._look_last(path, suspect)

    def _look_last(self, path: str, suspect: Suspect) -> TailedFile | None:
        """Whether a suspect that has no path any more ended as a beginning of its original; else it is to be read."""
        if suspect.content is None:
            return None
        opened = Opened(suspect.content, identify(suspect.content.fd))
        read = self._originals(suspect.elders, opened) or any(_was_read(elder, opened) for elder in suspect.elders)
        if read or opened.status.id in self._registry.by_identity:
            suspect.let_go()
            return None
        tailed = self._registry.begin(suspect.origin, path, opened)
        if self._registry.by_path.get(path) is tailed:
            self._registry.displace(path)
        self._registry.lose(tailed)
        return tailed

    def look(self, path: str) -> TailedFile | None:
        """Look at a suspect again; the file it turned out to be, if it is one of its own."""
        suspect = self._suspects.get(path)
        if suspect is None:
            return None
        opened = self._registry.open(suspect.origin, path)
        if opened is None or opened.status.id != suspect.identity:
            if opened is not None:
                opened.content.close()
            self.moved(path)  # what became of it, and what stands there now, is told of soon
            return None
        now_s = self._clock.monotonic_s()
        size = opened.status.size
        known = self._registry.by_identity.get(opened.status.id)
        # The name may belong to its original's next generation by now, and this be a copy of that one.
        elders = self._originals((*suspect.elders, *self._elders(suspect.origin, path)), opened)
        if elders and known is None:
            growing = suspect.size < size < max(elder.head for elder in elders)
            until_s = now_s + PATIENCE_S if growing else suspect.until_s
            self._suspects[path] = suspect._replace(elders=elders, size=max(size, suspect.size), until_s=until_s)
            if now_s < until_s:
                opened.content.close()
                return None
        return self._clear(path, suspect, opened)

    def clear_all(self) -> None:
        """Whoever reads once waits for nothing: all of them are files of their own."""
        for path, suspect in list(self._suspects.items()):
            opened = self._registry.open(suspect.origin, path)
            if opened is not None:
                self._clear(path, suspect, opened)

    def _clear(self, path: str, suspect: Suspect, opened: Opened) -> TailedFile:
        """It is one of its own, or another name of one that is known."""
        self.gone(path)
        known = self._registry.by_identity.get(opened.status.id)
        if known is not None:
            # Another name of the same file (a symbolic link, say) was opened while this one was only watched.
            opened.content.close()
            self._registry.alias(known, path, suspect.origin)
            return known
        return self._registry.begin(suspect.origin, path, opened)

    def due_s(self, now_s: float) -> float:
        """Seconds until a suspect should be looked at."""
        return float("inf") if self._look_at_s is None else self._look_at_s - now_s

    def tend(self, now_s: float) -> list[TailedFile]:
        """Look at all suspects when it is time; those that are files of their own."""
        if self._look_at_s is None or now_s < self._look_at_s:
            return []
        looks = [self.look(path) for path in list(self._suspects)]
        for identity, moving in list(self._moving.items()):
            if now_s >= moving.until_s:
                del self._moving[identity]
                looks.append(self._look_last(moving.path, moving.suspect))
        self._look_at_s = now_s + LOOK_S if self._suspects or self._moving else None
        return [tailed for tailed in looks if tailed is not None]

    def notices(self) -> list[Notice]:
        """The suspects, for status."""
        return [
            Notice(path, f"looks like a copy of {suspect.elders[0].path} and is watched before it is read")
            for path, suspect in self._suspects.items()
        ]

    def _elders(self, origin: Origin, path: str) -> Iterator[TailedFile]:
        """The target's files in the same directory whose names this one's is built on: `app.log` of `app.log.1`.

        Also `app.log` of `app-20250101.log`: the stem in front, the extension kept. The longest name comes first, but
        it need not be the one: `app.log.12` is built on `app.log.1`, too.
        """
        name = os.path.basename(path)
        extension = os.path.splitext(name)[1]
        for length in range(len(path) - 1, len(path) - len(name), -1):
            for candidate in (path[:length], path[:length] + extension):
                if candidate == path:
                    continue
                elder = self._registry.by_path.get(candidate)
                if elder is not None and elder.origin is origin and not elder.ended:
                    yield elder
                # A scan finds a copy and what came after it at once: its original may have another name by then.
                former = self._registry.displaced.get(candidate)
                if former is not None and former.origin is origin and not former.closed:
                    yield former

    def _originals(self, elders: Iterable[TailedFile], opened: Opened) -> tuple[TailedFile, ...]:
        distinct = dict.fromkeys(elder for elder in elders if not elder.closed)
        return tuple(elder for elder in distinct if self._same_head(elder, opened))

    def _same_head(self, elder: TailedFile, opened: Opened) -> bool:
        try:
            return self._begins_as(elder, opened)
        except OSError:  # one of the two can't be read now: two files, as far as anybody can tell
            return False

    def _begins_as(self, elder: TailedFile, opened: Opened) -> bool:
        """Whether the file begins as the elder does, as far as it goes. One that is still empty may become anything.

        The elder may have been truncated by now: what it began with when it was last read is its fingerprint, what it
        begins with today may not have been noticed yet. The file may be a copy of either. While the elder has what was
        read of it, a copy's end is there as well: files may begin alike, with a banner, and be two all the same.
        """
        head = opened.content.read(0, FINGERPRINT_BYTES)
        if not head:
            return elder.head > 0 or bool(elder.size())
        known = bool(elder.fingerprint.length) and begins_as(head, elder.fingerprint)
        if elder.closed or not self._registry.ensure_open(elder):
            return known
        assert elder.content is not None
        if head != elder.content.read(0, len(head)):
            return known
        end = max(0, opened.status.size - ANCHOR_BYTES)
        if elder.content.read(end, ANCHOR_BYTES).startswith(opened.content.read(end, ANCHOR_BYTES)):
            return True
        # Only now: it may have been truncated this moment.
        leader = elder.leader()
        held = anchor_holds(elder.content, leader.offset, leader.anchor)
        return not held or head != elder.content.read(0, len(head))


def _was_read(elder: TailedFile, opened: Opened) -> bool:
    """Whether an elder that may be over by now was read as far as the file goes, which begins as it did."""
    if not elder.fingerprint.length or opened.status.size > elder.head:
        return False
    try:
        return begins_as(opened.content.read(0, FINGERPRINT_BYTES), elder.fingerprint)
    except OSError:
        return False
