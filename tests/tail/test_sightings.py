"""Events and scans become files, and what a huge tree costs stays a small share of the reader's time."""

from contextlib import closing
from pathlib import Path

from hostagent.model import Target
from hostagent.process.chain import Chain
from hostagent.process.framing.raw import RawFraming
from hostagent.state.checkpoint import Checkpoint
from hostagent.tail.builtin import FileTailer
from hostagent.tail.files.copies import Copies
from hostagent.tail.files.known import KnownRows
from hostagent.tail.files.openfiles import OpenFiles
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.paths import compile_selection
from hostagent.tail.finding.places import Place, Places
from hostagent.tail.finding.sightings import REST_SHARE, Sightings
from hostagent.tail.origin import Origin, Policy
from hostagent.tail.watching.events import Event, Kind
from hostagent.tail.watching.watcher import Watcher
from tests.tail.clock import HandClock


def test_directories_that_come_and_go_have_a_tree_scanned_for_a_share_of_the_time_only(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    target = Target(id="app", source="app", paths=(f"{logs}/*/*.log",))
    policy = Policy("beginning", None, 0.2, drop_page_cache=False)
    place = Place(Origin(target, Chain(framing=RawFraming()), (), {}, policy), compile_selection(target.paths))
    clock = HandClock()
    came = [Event(Kind.CREATED, str(logs), "new", is_dir=True)]

    def names(sightings: Sightings, events: list[Event]) -> list[str]:
        return [Path(tailed.path).name for tailed in sightings.apply(events)]

    with closing(Watcher(clock)) as watcher, closing(Checkpoint.open(tmp_path / "state", clock)) as checkpoint:
        places = Places(watcher)
        registry = Registry(OpenFiles({"file": FileTailer()}, 10), checkpoint, KnownRows(), clock)
        sightings = Sightings(registry, places, Copies(registry, clock), clock, rescan_interval_s=1e9)
        places.put(place)
        assert list(places.scan(place)) == []
        (logs / "new").mkdir()
        (logs / "new/one.log").touch()
        clock.per_look_s = 1.0  # so a scan takes at least a second
        assert names(sightings, came) == ["one.log"]
        clock.per_look_s = 0.0
        (logs / "new/two.log").touch()
        assert names(sightings, came) == []
        rest_s = sightings.due_s(clock.now_s)
        assert rest_s >= REST_SHARE
        clock.now_s += rest_s
        assert names(sightings, []) == ["two.log"]
        (logs / "new/three.log").touch()
        assert names(sightings, came) == ["three.log"]
        for tailed in registry.all_files():
            tailed.close()
