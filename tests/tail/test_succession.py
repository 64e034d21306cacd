"""Which file came after which, whenever events are read and however late they are made sense of.

Events tell of names and are read late: by then a name may have been three other files'. Every way in which two looks
can fall into a series of rotations is tried.
"""

from collections.abc import Iterator
from contextlib import closing
from itertools import combinations_with_replacement
from pathlib import Path
from typing import NamedTuple

import pytest

from hostagent.model import Target
from hostagent.process.chain import Chain
from hostagent.process.framing.cri import CriFraming
from hostagent.state.checkpoint import Checkpoint
from hostagent.tail.builtin import FileTailer
from hostagent.tail.files.copies import Copies
from hostagent.tail.files.known import KnownRows
from hostagent.tail.files.openfiles import OpenFiles
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.paths import compile_selection
from hostagent.tail.finding.places import Place, Places
from hostagent.tail.finding.sightings import Sightings
from hostagent.tail.origin import Origin, Policy
from hostagent.tail.tailer import TailedFile
from hostagent.tail.watching.watcher import Event, Watcher
from tests.tail.clock import HandClock

ROTATIONS = 3
STEPS = 2 * ROTATIONS
POLICY = Policy("beginning", None, 0.2, drop_page_cache=False)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    with closing(Checkpoint.open(tmp_path / "state", HandClock())) as one:
        yield one


class Way(NamedTuple):
    """How logs are rotated, and which of the names are wanted."""

    patterns: tuple[str, ...]
    shifts: bool


WAYS = {
    "a-name-for-each": Way(("0.log", "0.log.[0-9]*"), shifts=False),
    "a-name-for-each-log-only": Way(("0.log",), shifts=False),
    "names-shift": Way(("0.log", "0.log.[0-9]*"), shifts=True),
    "names-shift-log-only": Way(("0.log",), shifts=True),
}


class Scene:
    """A log that was read as far as it goes, and the names of its rotations."""

    def __init__(self, directory: Path, way: Way, checkpoint: Checkpoint, watcher: Watcher) -> None:
        self.log = directory / "0.log"
        self.inodes: list[int] = []
        self._way = way
        self._watcher = watcher
        clock = HandClock()
        paths = tuple(f"/{pattern}" for pattern in way.patterns)
        target = Target(id="app", source="app", paths=paths, root=str(directory), shown_root="/logs")
        place = Place(Origin(target, Chain(framing=CriFraming()), (), {}, POLICY), compile_selection(target.paths))
        places = Places(watcher)
        self.registry = Registry(OpenFiles({"file": FileTailer()}, 10), checkpoint, KnownRows(), clock)
        self.sightings = Sightings(self.registry, places, Copies(self.registry, clock), clock, rescan_interval_s=1e9)
        places.put(place)
        self._begin()
        self.log.write_text("2026-01-01T00:00:00.1Z stdout P a\n")
        self.sightings.rescan("app")
        first = self.registry.by_path[str(self.log)]
        fetched = first.fetch(first.cursors[0], 100)
        first.advance(first.cursors[0], fetched, len(fetched.data))

    def step(self, number: int) -> None:
        """Half a rotation: the log is moved away, and then there is another one."""
        rotation, half = divmod(number, 2)
        if half:
            self._begin()
            return
        if self._way.shifts:
            for older in range(rotation, 0, -1):
                Path(f"{self.log}.{older}").rename(f"{self.log}.{older + 1}")
        self.log.rename(f"{self.log}.{1 if self._way.shifts else rotation}")

    def _begin(self) -> None:
        self.log.touch()
        self.inodes.append(self.log.stat().st_ino)

    def look(self) -> None:
        self.sightings.apply(self._watcher.read(0.0))

    def line(self) -> list[int]:
        """The inodes of the files that follow each other up to the log as it is now."""
        found: list[int] = []
        tailed: TailedFile | None = self.registry.by_path[str(self.log)]
        while tailed is not None and len(found) <= len(self.inodes):
            found.insert(0, tailed.identity.inode)
            tailed = tailed.predecessor
        return found


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_files_follow_each_other_whenever_one_looks(tmp_path: Path, checkpoint: Checkpoint, way: Way) -> None:
    wrong: list[str] = []
    for number, looks in enumerate(combinations_with_replacement(range(STEPS + 1), 4)):
        directory = tmp_path / str(number)
        directory.mkdir()
        with closing(Watcher(HandClock())) as watcher:
            scene = Scene(directory, way, checkpoint, watcher)
            read_first, apply_first, read_next, apply_next = looks
            events: list[Event] = []
            for step in range(STEPS + 1):
                if step == read_first:
                    events = watcher.read(0.0)
                if step == apply_first:
                    scene.sightings.apply(events)
                if step == read_next:
                    events = watcher.read(0.0)
                if step == apply_next:
                    scene.sightings.apply(events)
                if step < STEPS:
                    scene.step(step)
            scene.look()
            scene.look()
            line = [scene.inodes.index(inode) for inode in scene.line()]
            recorded = {tailed.recorded_path for tailed in scene.registry.all_files()}
            ended = sorted(scene.inodes.index(tailed.identity.inode) for tailed in scene.registry.ended)
            moved_away = list(range(ROTATIONS)) if len(way.patterns) == 1 else []
            if (line, recorded, ended) != (list(range(ROTATIONS + 1)), {"/logs/0.log"}, moved_away):
                wrong.append(f"{looks}: {line} {recorded} {ended}")
            for tailed in scene.registry.all_files():
                tailed.close()
    assert not wrong, f"{len(wrong)} of {number + 1}"
