"""Finds out what happened in directories the kernel sends no events for, by comparing what they look like.

Stands in for inotify, directory by directory, and speaks in the same events. However many directories there are, the
time spent looking stays a small share of a core.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from hostagent.clock import Clock
from hostagent.tail.finding.beneath import OpenError, beneath, listed, open_directory
from hostagent.tail.watching.events import Event, Kind

SHORTEST_INTERVAL_S = 0.25
LONGEST_INTERVAL_S = 30.0
# A round over all polled directories that took 1 ms is followed by at least 50 ms without one: 2 % of a core.
_REST_PER_WORK = 50.0


class _Seen(NamedTuple):
    inode: int
    size: int
    mtime_ns: int
    is_dir: bool


Snapshot = dict[str, _Seen]


class Poller:
    """The polled directories with what each looked like last time. One thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._snapshots: dict[str, Snapshot] = {}
        self._roots: dict[str, str] = {}
        self._next_s = 0.0
        self._cookie = 0

    @property
    def directories(self) -> frozenset[str]:
        """The polled directories; may be asked from any thread."""
        return frozenset(list(self._snapshots))

    def add(self, directory: str, root: str = "/") -> None:
        """Begin with a directory; what is in it now is not reported. OpenError if it can't be listed."""
        if directory not in self._snapshots:
            self._snapshots[directory] = _snapshot(root, directory)
            self._roots[directory] = root

    def discard(self, directory: str) -> None:
        self._snapshots.pop(directory, None)
        self._roots.pop(directory, None)

    def due_s(self) -> float | None:
        """Seconds until the next round, None when nothing is polled."""
        return max(0.0, self._next_s - self._clock.monotonic_s()) if self._snapshots else None

    def round(self) -> list[Event]:
        """Look at every directory once and tell what is new."""
        begun_s = self._clock.monotonic_s()
        events: list[Event] = []
        for directory in list(self._snapshots):
            events += self.look(directory)
        ended_s = self._clock.monotonic_s()
        rest_s = (ended_s - begun_s) * _REST_PER_WORK
        self._next_s = ended_s + min(max(rest_s, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)
        return events

    def look(self, directory: str) -> list[Event]:
        """Look at one polled directory now."""
        before = self._snapshots[directory]
        try:
            now = _snapshot(self._roots[directory], directory)
        except OpenError:
            self.discard(directory)
            return [Event(Kind.DIRECTORY_GONE, directory)]
        self._snapshots[directory] = now
        return [] if now == before else self._differences(directory, before, now)

    def _differences(self, directory: str, before: Snapshot, now: Snapshot) -> list[Event]:
        """What lies between two snapshots. Names are given up before any is taken: renames may form a chain or ring."""
        gone = {name: seen for name, seen in before.items() if _replaced(seen, now.get(name))}
        new = {name: seen for name, seen in now.items() if _replaced(seen, before.get(name))}
        old_name_of = {seen.inode: name for name, seen in gone.items()}
        left, arrived = [], {}
        for name, seen in new.items():
            old_name = old_name_of.get(seen.inode)
            if old_name is None or gone[old_name].is_dir != seen.is_dir:
                continue
            del gone[old_name], old_name_of[seen.inode]
            self._cookie += 1
            left.append(Event(Kind.MOVED_FROM, directory, old_name, self._cookie, seen.is_dir))
            arrived[name] = Event(Kind.MOVED_TO, directory, name, self._cookie, seen.is_dir)
        deleted = [Event(Kind.DELETED, directory, name, 0, seen.is_dir) for name, seen in gone.items()]
        created = [
            Event(Kind.CREATED, directory, name, 0, seen.is_dir) for name, seen in new.items() if name not in arrived
        ]
        # A file that was renamed may have been written to before.
        modified = [
            Event(Kind.MODIFIED, directory, name)
            for name, seen in now.items()
            if not seen.is_dir and (name in arrived or (name not in new and before[name] != seen))
        ]
        return [*left, *deleted, *arrived.values(), *created, *modified]


def _replaced(seen: _Seen, other: _Seen | None) -> bool:
    return other is None or other.inode != seen.inode or other.is_dir != seen.is_dir


def _snapshot(root: str, directory: str) -> Snapshot:
    path = beneath(root, directory)
    snapshot: Snapshot = {}
    fd = open_directory(root, path)
    try:
        for name, status in listed(fd):
            is_dir = stat.S_ISDIR(status.st_mode)
            snapshot[name] = _Seen(
                status.st_ino, 0 if is_dir else status.st_size, 0 if is_dir else status.st_mtime_ns, is_dir
            )
    except OSError as error:
        raise OpenError(path, f"can't be listed: {error.strerror}") from error
    finally:
        os.close(fd)
    return snapshot
