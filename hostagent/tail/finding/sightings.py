"""What happens to names: events and scans become files that begin, move, or lose their place.

The watcher tells of names, not of files, and tells it late: when an event is read, its name may already belong to
another file. So every name that a file was moved to is looked at once more when all events of a turn are in, and a slow
scan makes up for whatever was missed. Runs in the reader's thread; returns the files that may have something to read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hostagent.clock import Clock
from hostagent.tail.files.copies import Copies
from hostagent.tail.files.openfiles import Opened
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.beneath import join
from hostagent.tail.finding.paths import Found, behind_link
from hostagent.tail.finding.places import Place, Places
from hostagent.tail.finding.succession import Succession
from hostagent.tail.finding.unseen import Unseen
from hostagent.tail.origin import Origin
from hostagent.tail.tailer import TailedFile
from hostagent.tail.watching.watcher import Event, Kind

RESCAN_SHARE = 200
"""A full scan runs at most once in RESCAN_SHARE times its own length: half a percent of one core."""

REST_SHARE = 9
"""A scan because of events comes at most once in so many times its own length, for each target: a tenth of one core."""


class Departure(NamedTuple):
    """A name that was moved away: the file it belonged to, and for whom and under which path it is recorded.

    The number counts departures; it is 0 where a file leaves a name it got after the one that it is recorded under.
    """

    tailed: TailedFile | None
    origin: Origin | None
    name: str
    recorded_path: str
    number: int


class Sightings:
    """Applies events and scans to the registry."""

    def __init__(
        self, registry: Registry, places: Places, copies: Copies, clock: Clock, rescan_interval_s: float
    ) -> None:
        self.overflows = 0
        self.rescans = 0
        self.unseen = Unseen(clock)
        self._registry = registry
        self._places = places
        self._copies = copies
        self._clock = clock
        self._rescan_interval_s = rescan_interval_s
        self._rescan_at_s = clock.monotonic_s() + rescan_interval_s
        self._moving: dict[int, Departure] = {}
        self._arrived: dict[str, Departure] = {}
        self._passing: dict[str, Departure] = {}
        self._succession = Succession(registry)
        self._stale: set[str] = set()
        self._rest_until_s: dict[str, float] = {}

    # -- events --------------------------------------------------------------------------------------------------

    def apply(self, events: Iterable[Event]) -> list[TailedFile]:
        """Let events change the picture."""
        self._registry.looks += 1
        ready: list[TailedFile] = []
        earlier, self._moving = self._moving, {}
        told = False
        for event in events:
            told = True
            tailed = self._apply(event, earlier)
            if tailed is not None:
                ready.append(tailed)
        if not told:
            self._passing.clear()
        for path, departure in self._arrived.items():
            settled = self._settle(path, departure)
            if settled is None:
                # It has moved on already; the event that tells where to is next in the queue.
                self._passing[path] = departure
            else:
                ready.extend(settled)
        self._arrived.clear()
        # Whoever left in the turn before and has not arrived by now went where nobody watches.
        for departure in earlier.values():
            if departure.tailed is not None:
                self._registry.lose_path(departure.tailed)
                ready.append(departure.tailed)
        self._stale |= self._registry.take_stale()
        ready.extend(self._rescan_stale())
        self.unseen.settle(self._registry.by_path.get, self._is_put_off)
        self._succession.arrange(ready)
        return ready

    def _apply(self, event: Event, earlier: dict[int, Departure]) -> TailedFile | None:
        if event.kind is Kind.OVERFLOW:
            self.overflows += 1
            self._stale.update(self._places.by_id)
            return None
        if event.kind is Kind.DIRECTORY_GONE:
            self._stale |= self._places.lost(event.directory)
            return None
        if event.is_dir:
            self._stale |= self._places.watching(event.directory)
            return None
        path = join(event.directory, "/" + event.name)
        if event.kind is Kind.MODIFIED:
            self.unseen.written(path)
        if event.kind in (Kind.MODIFIED, Kind.CLOSED):
            known = self._registry.by_path.get(path) or self._copies.look(path)
            # Whoever writes to a file that could not be read may have changed its permissions, which is no event.
            refused = known is None and path in self._registry.refused
            place = self._places.wanting(path) if refused else None
            return self._appear(place, path) if place is not None else known
        if event.kind in (Kind.MOVED_FROM, Kind.DELETED):
            return self._leave(path, event)
        return self._come(path, event, earlier)

    def _come(self, path: str, event: Event, earlier: dict[int, Departure]) -> TailedFile | None:
        """A name is there that was not: created, or moved here."""
        departure = self._moving.pop(event.cookie, None) or earlier.pop(event.cookie, None)
        followed = event.kind is Kind.MOVED_TO and self.unseen.arrived(path, event.cookie)
        if event.kind is Kind.MOVED_TO and departure is not None:
            return self._move(departure, path)
        place, name = self._places.wanting_as(path)
        if place is None:
            # A link on the way to a target's files was made, or pointed elsewhere.
            self._stale |= self._places.behind(path)
            return None
        if not followed:
            self.unseen.appeared(path, place.origin, written=event.kind is Kind.MOVED_TO)
        return self._appear(place, name)

    def _is_put_off(self, path: str) -> bool:
        """Whether a name leads to something that can't be opened, or must not be yet."""
        return path in self._registry.refused or self._copies.watches(path)

    def _leave(self, path: str, event: Event) -> TailedFile | None:
        """A name is gone: moved away or deleted."""
        self._registry.refused.discard(path)
        tailed = self._registry.unbind(path)
        before = self._arrived.pop(path, None) or self._passing.pop(path, None)
        place, name = self._places.wanting_as(path)
        if event.kind is Kind.DELETED:
            self.unseen.deleted(path, tailed)
            if tailed is not None and self._registry.by_path.get(name) is tailed:
                self._registry.displace(name)  # a link to it, which leads nowhere now, or to another file
            elif tailed is not None and tailed.path == path:
                self._registry.lose_path(tailed)
            return self._copies.deleted(path) or tailed
        self._copies.moved(path)
        self.unseen.left(path, event.cookie, tailed)
        if before is not None and tailed is None:
            self._moving[event.cookie] = before
        elif tailed is not None or place is not None:
            self._moving[event.cookie] = self._departure(tailed, place, name)
        return tailed

    def _departure(self, tailed: TailedFile | None, place: Place | None, name: str) -> Departure:
        origin = place.origin if place is not None else None
        number = self._succession.count_departure()
        if tailed is not None:
            at_home = tailed.origin.recorded(name) == tailed.recorded_path
            return Departure(tailed, origin, name, tailed.recorded_path, number if at_home else 0)
        assert origin is not None
        return Departure(None, origin, name, origin.recorded(name), number)

    def _move(self, departure: Departure, path: str) -> TailedFile | None:
        """A name arrived elsewhere; if its file is read, it stays the same file."""
        self._arrived[path] = departure
        tailed = departure.tailed
        if tailed is None or tailed.closed:
            return None
        displaced = self._registry.by_path.get(path)
        if displaced is not None and displaced is not tailed:
            self._registry.displace(path)
        self._succession.has_left(tailed, departure.number)
        self._registry.move(tailed, path)
        self._lose_unwanted(tailed, path)
        return tailed

    def _settle(self, path: str, departure: Departure) -> list[TailedFile] | None:
        """See whose name it is that something was moved to: a fast rotation may have been through it twice.

        None if nothing is there.
        """
        origin = departure.origin or (departure.tailed.origin if departure.tailed is not None else None)
        opened = self._registry.open(origin, path) if origin is not None else None
        if opened is None or origin is None:
            return None
        bound = self._registry.by_path.get(path)
        known = self._registry.by_identity.get(opened.status.id)
        if known is not None:
            opened.content.close()
            if bound is not known:
                if bound is not None:
                    self._registry.displace(path)
                self._registry.alias(known, path, origin)
            self._succession.was_mistaken(departure.tailed, departure.number, known)
            self._lose_unwanted(known, path)
            return [known]
        if bound is not None:
            self._registry.displace(path)
        if self._copies.suspect(origin, path, opened):
            opened.content.close()
            return []
        fresh = self._registry.begin(origin, path, opened, recorded_path=departure.recorded_path)
        if origin.chain.joins_lines:
            self._succession.was_mistaken(departure.tailed, departure.number, fresh)
            self._succession.turns_up(fresh, departure.name)
        self._lose_unwanted(fresh, path)
        return [fresh]

    def _lose_unwanted(self, tailed: TailedFile, path: str) -> None:
        """A file was moved to a path: it has lost its place if it is wanted neither there nor under a name it has."""
        place = self._places.by_id.get(tailed.origin.target.id)
        if place is not None and place.wants(path):
            return
        # Other names that it had may be links that lead to another file by now.
        others = [other for other in tailed.paths if place is not None and place.wants(other)]
        if tailed.identity.inode not in (behind_link(other)[0] for other in others):
            self._registry.lose(tailed)

    def _appear(self, place: Place, path: str) -> TailedFile | None:
        """Something was created at, or moved to, a path that a target wants: open it at once."""
        opened = self._registry.open(place.origin, path)
        if opened is None:
            self._places.watch_dangling(path, place)
            return None
        return self._arrive(place, path, opened)

    def _arrive(self, place: Place, path: str, opened: Opened) -> TailedFile | None:
        """A file stands at a path where it did not before: known already, a copy in the making, or new."""
        displaced = self._registry.by_path.get(path)
        known = self._registry.by_identity.get(opened.status.id)
        if displaced is not None and displaced is not known:
            self._registry.displace(path)
        if known is not None:
            opened.content.close()
            self._registry.alias(known, path, place.origin)
            self._watch_real(place, known, path)
            return known
        if self._copies.suspect(place.origin, path, opened):
            opened.content.close()
            return None
        fresh = self._registry.begin(place.origin, path, opened)
        if place.origin.chain.joins_lines:
            self._succession.arrives(fresh, displaced)
        self._watch_real(place, fresh, path)
        return fresh

    def _watch_real(self, place: Place, tailed: TailedFile, path: str) -> None:
        """A symbolic link's directory shows no writes: watch the directory of the file it leads to as well."""
        real = self._registry.real_path(tailed)
        if real is not None:
            self._places.watch_behind(path, real, place)

    # -- scans ---------------------------------------------------------------------------------------------------

    def _rescan_stale(self) -> list[TailedFile]:
        """Scan the targets whose directories have changed; whoever changes a huge tree all the time waits."""
        ready: list[TailedFile] = []
        for target_id in list(self._stale):
            begun_s = self._clock.monotonic_s()
            if begun_s >= self._rest_until_s.get(target_id, 0.0):
                self._stale.discard(target_id)
                ready.extend(self.rescan(target_id))
                end_s = self._clock.monotonic_s()
                self._rest_until_s[target_id] = end_s + (end_s - begun_s) * REST_SHARE
        return ready

    def rescan(self, target_id: str) -> list[TailedFile]:
        """Compare a target's paths with what is known; the files that are new, bigger or lost."""
        place = self._places.by_id.get(target_id)
        if place is None:
            return []
        ready: list[TailedFile] = []
        seen: set[str] = set()
        for found in self._places.scan(place):
            seen.add(found.path)
            tailed = self._compare(place, found)
            if tailed is not None:
                ready.append(tailed)
        self._registry.refused.keep(seen, place.wants)
        for path, tailed in list(self._registry.by_path.items()):
            if tailed.origin is place.origin and path not in seen and tailed.path == path and not tailed.ended:
                self._registry.displace(path)
                ready.append(tailed)
        # Of files that came after each other and were found together, the older ones are read first.
        ready.sort(key=lambda tailed: tailed.identity.birth_ns)
        return ready

    def _compare(self, place: Place, found: Found) -> TailedFile | None:
        path = found.path
        tailed = self._registry.by_path.get(path)
        if tailed is not None:
            inode, size = (found.inode, found.size) if not found.is_symlink else behind_link(path)
            if inode == tailed.identity.inode:
                if tailed.drop_size is not None:  # for a while, no target wanted it
                    self._registry.alias(tailed, path, place.origin)
                return tailed if size != tailed.head or len(tailed.cursors) > 1 else None
        elif self._copies.watches(path):
            return self._copies.look(path)
        opened = self._registry.open(place.origin, path)
        if opened is not None:
            return self._arrive(place, path, opened)
        if found.is_symlink and path not in self._registry.refused:
            self._places.watch_dangling(path, place)
            self._registry.displace(path)
            return tailed
        return None

    def due_s(self, now_s: float) -> float:
        """Seconds until `tend` has something to do."""
        rested_s = min((self._rest_until_s.get(target_id, 0.0) for target_id in self._stale), default=float("inf"))
        return min(self._rescan_at_s - now_s, self._copies.due_s(now_s), rested_s - now_s)

    def tend(self, now_s: float) -> list[TailedFile]:
        """Look at suspects, scan everything when it is time."""
        ready = self._copies.tend(now_s)
        if now_s < self._rescan_at_s:
            return ready
        self.rescans += 1
        self._succession.forget_closed()
        self._registry.forget_displaced()
        self._places.forget_links(self._registry.by_path)
        self._rest_until_s = {id_: until_s for id_, until_s in self._rest_until_s.items() if until_s > now_s}
        for target_id in list(self._places.by_id):
            ready.extend(self.rescan(target_id))
        end_s = self._clock.monotonic_s()
        self._rescan_at_s = end_s + max(self._rescan_interval_s, (end_s - now_s) * RESCAN_SHARE)
        return ready
