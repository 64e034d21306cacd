"""Targets on this host: their patterns, and the directories that are watched for them.

Every directory is watched before it is listed, so that nothing can appear in between. Which files are read is the
registry's business; this module knows paths only.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from typing import NamedTuple

from hostagent.hookspecs import Notice
from hostagent.tail.finding.beneath import beneath, join
from hostagent.tail.finding.paths import Found, Limits, Selection, scan
from hostagent.tail.origin import Origin
from hostagent.tail.watching.watcher import Watcher

# Whoever owns a container can fill it with a million names. What one of them may cost everybody, in the reader's time
# and in watches, ends here, and its notice says so.
TENANT_LIMITS = Limits(entries=200_000, depth=32, directories=2_000)


class Place(NamedTuple):
    """A target with its compiled patterns."""

    origin: Origin
    selection: Selection

    def wants(self, path: str) -> bool:
        """Whether a path of this host is one the target wants read."""
        return self.selection.matches(beneath(self.origin.target.root, path))


class Places:
    """The targets that are followed now, by id."""

    def __init__(self, watcher: Watcher) -> None:
        self.by_id: dict[str, Place] = {}
        self._watcher = watcher
        self._directories: dict[str, set[str]] = {}
        self._links: dict[str, str] = {}
        self._notices: dict[str, list[Notice]] = {}

    def put(self, place: Place) -> None:
        """Follow a target, in the place of an earlier one with its id."""
        self.by_id[place.origin.target.id] = place

    def follows(self, origin: Origin) -> bool:
        """Whether this is what a target is read with now: one may have gone and come back since."""
        place = self.by_id.get(origin.target.id)
        return place is not None and place.origin is origin

    def remove(self, target_id: str) -> None:
        """Follow a target no longer; its directories are only watched for others."""
        self.by_id.pop(target_id, None)
        self._notices.pop(target_id, None)
        for directory, targets in list(self._directories.items()):
            targets.discard(target_id)
            if not targets:
                del self._directories[directory]
                self._watcher.unwatch(directory)

    def scan(self, place: Place) -> Iterator[Found]:
        """What matches now, by its path on this host, with a watch on every directory where more can appear."""
        target = place.origin.target
        notices: list[Notice] = []

        def watch(directory: str) -> None:
            self.watch(join(target.root, directory), place)

        limits = Limits() if target.root == "/" else TENANT_LIMITS
        matches = scan(target.root, place.selection, sizes=True, limits=limits, on_directory=watch, notices=notices)
        for found in matches:
            yield found if target.root == "/" else found._replace(path=join(target.root, found.path))
        self._notices[target.id] = notices

    def watch(self, directory: str, place: Place) -> None:
        """Watch a directory for a target. Asked again with every scan: the path may lead elsewhere by now."""
        if self._watcher.watch(directory, place.origin.target.root):
            self._directories.setdefault(directory, set()).add(place.origin.target.id)

    def watch_behind(self, link: str, real: str, place: Place) -> None:
        """Watch where a link leads: its file is written there, and another one may take that file's place."""
        self._links[real] = link
        self.watch(os.path.dirname(real), place)

    def watch_dangling(self, link: str, place: Place) -> None:
        """Watch where a link leads that has no file behind it: that is where one will appear."""
        if place.origin.target.root == "/" and os.path.islink(link):
            self.watch_behind(link, os.path.realpath(link), place)

    def forget_links(self, known: Container[str]) -> None:
        """Before everything is scanned: of the links, only those that are known still lead where they led."""
        self._links = {real: link for real, link in self._links.items() if link in known}

    def wanting_as(self, path: str) -> tuple[Place | None, str]:
        """The target that wants what stands at a path, if any, and under which name: the path, or a link to it."""
        place = self.wanting(path)
        if place is None and (link := self._links.get(path)) is not None:
            return self.wanting(link), link
        return place, path

    def wanting(self, path: str) -> Place | None:
        """The target that wants a path, if any."""
        for target_id in self._directories.get(os.path.dirname(path), ()):
            place = self.by_id[target_id]
            if place.wants(path):
                return place
        return None

    def behind(self, path: str) -> set[str]:
        """The ids of the targets whose matches may lie behind a link at this path."""
        targets = (self.by_id[target_id] for target_id in self.watching(os.path.dirname(path)))
        return {
            place.origin.target.id
            for place in targets
            if place.selection.leads_through(beneath(place.origin.target.root, path))
        }

    def watching(self, directory: str) -> set[str]:
        """The ids of the targets for which a directory is watched."""
        return set(self._directories.get(directory, ()))

    def lost(self, directory: str) -> set[str]:
        """A directory is no longer watched, being gone; the ids of the targets that have to be scanned again."""
        return self._directories.pop(directory, set())

    @property
    def directories(self) -> int:
        """How many directories are watched or polled."""
        return len(self._directories)

    @property
    def polled(self) -> int:
        """How many of them are polled, because the kernel doesn't watch them."""
        return len(self._watcher.polled)

    def notices(self) -> list[Notice]:
        """What can't be searched or watched as it should be."""
        return [*(notice for notices in self._notices.values() for notice in notices), *self._watcher.notices()]
