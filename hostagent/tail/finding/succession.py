"""Which file came after which at a path, so that a record that runs on from one into the next is put together.

Events are read late: the name a file was found under may have been others' since, and these come before it. So a file
has its place by its age, and where the kernel's clock is too coarse, by when it left the path. Only files of which
nothing was read yet can still change places. The reader's thread alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from hostagent.tail.files.registry import Registry
from hostagent.tail.tailer import TailedFile


class Succession:
    """Keeps the line of the files of each path.

    A file's `place_in_line` says whether it is still at its path as far as is known, and the number of its departure,
    or else of the last one before it came. Sorted by that, the oldest come first.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._left: dict[str, TailedFile] = {}
        self._departures = 0

    def count_departure(self) -> int:
        """A number for a departure; the later, the higher."""
        self._departures += 1
        return self._departures

    def has_left(self, tailed: TailedFile, number: int) -> None:
        """A file was moved away from its path with this departure, as far as events can tell."""
        if number:
            tailed.place_in_line = (False, number)
        self._left[tailed.path] = tailed

    def was_mistaken(self, taken: TailedFile | None, number: int, found: TailedFile) -> None:
        """It was another file that left with this departure: the one that was taken for it left later, if at all."""
        if not number:
            return
        found.place_in_line = (False, number)
        if taken is not None and taken is not found:
            taken.place_in_line = (True, number)

    def arrives(self, fresh: TailedFile, displaced: TailedFile | None) -> None:
        """A file was found at its own path: it follows the one that was there."""
        fresh.place_in_line = (True, self._departures)
        left = self._left.pop(fresh.path, None)
        before = displaced or self._end_of_line(left) or self._registry.last_ended_at(fresh.path, fresh.origin)
        self._registry.follow(fresh, before)

    def turns_up(self, fresh: TailedFile, path: str) -> None:
        """A file was first found when it had left its path already; it gets its place with `arrange`."""
        here = self._registry.by_path.get(path)
        newest = self._end_of_line(here or self._left.get(path))
        if here is None:
            self._left[path] = fresh
        if newest is None or newest is fresh or newest.recorded_path != fresh.recorded_path:
            return
        if newest.head == 0 or _age(newest) < _age(fresh):
            self._registry.follow(fresh, newest)

    def arrange(self, ready: Iterable[TailedFile]) -> None:
        """Put files that follow each other, and of which nothing was read yet, in the order of their age."""
        for tailed in ready:
            if tailed.predecessor is not None and tailed.successor is None and tailed.head == 0:
                self._arrange_line(tailed)

    def _arrange_line(self, newest: TailedFile) -> None:
        line = [newest]
        while (before := line[0].predecessor) is not None and before.head == 0 and before not in line:
            line.insert(0, before)
        by_age = sorted(line, key=_age)
        if by_age == line or before in line:
            return
        by_age[-1].successor = None
        self._registry.followed.pop(by_age[-1], None)
        for tailed in by_age:
            self._registry.follow(tailed, before)
            before = tailed

    @staticmethod
    def _end_of_line(tailed: TailedFile | None) -> TailedFile | None:
        if tailed is None or tailed.closed:
            return None
        seen = {tailed}
        while (after := tailed.successor) is not None and after not in seen and not after.closed:
            seen.add(after)
            tailed = after
        return tailed

    def forget_closed(self) -> None:
        """What left its path and is read to its end since is of no more interest."""
        self._left = {path: tailed for path, tailed in self._left.items() if not tailed.closed}


def _age(tailed: TailedFile) -> tuple[int, tuple[bool, int]]:
    return tailed.identity.birth_ns, tailed.place_in_line
