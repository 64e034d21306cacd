"""Where the kernel gives no watch or no events, comparing directories tells the same story."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.clock import Clock
from hostagent.tail.finding.beneath import NotThereError
from hostagent.tail.watching.events import Event, Kind
from hostagent.tail.watching.poll import LONGEST_INTERVAL_S, SHORTEST_INTERVAL_S, Poller
from hostagent.tail.watching.watcher import Watcher
from tests.support.waiting import wait_for
from tests.tail.clock import HandClock


@pytest.fixture
def poller(tmp_path: Path) -> Poller:
    poller = Poller(HandClock())
    poller.add(str(tmp_path))
    return poller


def brief(events: list[Event]) -> list[tuple[Kind, str]]:
    return [(event.kind, event.name) for event in events]


def test_what_is_there_at_the_beginning_is_not_reported(tmp_path: Path) -> None:
    (tmp_path / "old.log").touch()
    poller = Poller(HandClock())
    poller.add(str(tmp_path))
    assert poller.round() == []


def test_a_files_life_is_told(poller: Poller, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.touch()
    assert brief(poller.round()) == [(Kind.CREATED, "app.log")]
    path.write_bytes(b"1\n")
    assert brief(poller.round()) == [(Kind.MODIFIED, "app.log")]
    path.rename(tmp_path / "app.log.1")
    away, here, changed = poller.round()
    assert (away.kind, away.name, here.kind, here.name) == (Kind.MOVED_FROM, "app.log", Kind.MOVED_TO, "app.log.1")
    assert away.cookie == here.cookie != 0
    assert (changed.kind, changed.name) == (Kind.MODIFIED, "app.log.1")
    (tmp_path / "app.log.1").unlink()
    assert brief(poller.round()) == [(Kind.DELETED, "app.log.1")]
    assert poller.round() == []


def test_rotation_between_two_looks_is_a_rename_and_a_new_file(poller: Poller, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"old\n")
    poller.round()
    path.rename(tmp_path / "app.log.1")
    path.write_bytes(b"new\n")
    assert brief(poller.round()) == [
        (Kind.MOVED_FROM, "app.log"),
        (Kind.MOVED_TO, "app.log.1"),
        (Kind.CREATED, "app.log"),
        (Kind.MODIFIED, "app.log.1"),
    ]


def test_a_file_in_anothers_place_is_a_new_file(poller: Poller, tmp_path: Path) -> None:
    (tmp_path / "app.log").write_bytes(b"old\n")
    poller.round()
    (tmp_path / "app.log.new").write_bytes(b"new\n")
    (tmp_path / "app.log").unlink()
    spare = tmp_path / "keeps the inode from being used again"
    spare.touch()
    (tmp_path / "app.log").write_bytes(b"new\n")
    told = brief(poller.round())
    assert (Kind.CREATED, "app.log") in told
    assert (Kind.CREATED, "app.log.new") in told


def test_rewriting_to_the_same_size_is_told_by_its_time(poller: Poller, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"one\n")
    os.utime(path, ns=(1, 1))
    poller.round()
    path.write_bytes(b"two\n")
    assert brief(poller.round()) == [(Kind.MODIFIED, "app.log")]


def test_directories_are_told_as_such_and_their_times_are_not(poller: Poller, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    assert poller.round() == [Event(Kind.CREATED, str(tmp_path), "dir", 0, is_dir=True)]
    (tmp_path / "dir/inner").touch()
    assert poller.round() == []
    shutil.rmtree(tmp_path / "dir")
    (tmp_path / "dir").touch()
    assert (Kind.CREATED, "dir") in brief(poller.round())


def test_a_directory_that_went_away_is_told_once(poller: Poller, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    assert poller.round() == [Event(Kind.DIRECTORY_GONE, str(tmp_path))]
    assert poller.directories == frozenset()
    assert poller.due_s() is None
    with pytest.raises(NotThereError):
        poller.add(str(tmp_path))


def test_any_name_is_told_as_it_is(poller: Poller, tmp_path: Path) -> None:
    names = [b"two\nlines", b"\xff\xfe", b"n" * 255]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    assert {os.fsencode(event.name) for event in poller.round()} == set(names)


def test_a_polled_directory_stays_inside_its_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (root / "logs").symlink_to("/data")
    (root / "evil").symlink_to(tmp_path)
    poller = Poller(HandClock())
    poller.add(f"{root}/logs", str(root))
    with pytest.raises(NotThereError):
        poller.add(f"{root}/evil", str(root))
    (root / "data/a.log").touch()
    assert poller.round() == [Event(Kind.CREATED, f"{root}/logs", "a.log")]


step = st.tuples(st.sampled_from(["write", "rename", "swap", "delete", "look"]), st.integers(0, 3), st.integers(0, 3))


@given(steps=st.lists(step, max_size=25))
def test_following_the_events_always_leads_to_what_is_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Whoever keeps names and inodes by the events alone, in their order, has the directory's after every look."""
    directory = tmp_path_factory.mktemp("polled")
    poller = Poller(HandClock())
    poller.add(str(directory))
    known: dict[str, int] = {}
    for what, one, other in [*steps, ("look", 0, 0)]:
        path, target = directory / str(one), directory / str(other)
        if what == "write":
            with path.open("ab") as out:
                out.write(b"x")
        elif what == "rename" and path.exists():
            path.rename(target)
        elif what == "swap" and path.exists() and target.exists() and path != target:
            path.rename(directory / "between")
            target.rename(path)
            (directory / "between").rename(target)
        elif what == "delete":
            path.unlink(missing_ok=True)
        elif what == "look":
            follow(poller.round(), known, directory)
            assert known == {entry.name: entry.inode() for entry in os.scandir(directory)}


def follow(events: list[Event], known: dict[str, int], directory: Path) -> None:
    moving: dict[int, int] = {}
    for event in events:
        if event.kind is Kind.MOVED_FROM:
            moving[event.cookie] = known.pop(event.name)
        elif event.kind is Kind.MOVED_TO:
            assert event.name not in known
            known[event.name] = moving.pop(event.cookie)
        elif event.kind is Kind.DELETED:
            del known[event.name]
        elif event.kind is Kind.CREATED:
            assert event.name not in known
            known[event.name] = (directory / event.name).stat().st_ino
    assert moving == {}


def test_looking_takes_a_small_share_of_a_core(tmp_path: Path) -> None:
    clock = HandClock()
    poller = Poller(clock)
    assert poller.due_s() is None
    poller.add(str(tmp_path))
    assert poller.due_s() == 0.0
    poller.round()
    assert poller.due_s() == pytest.approx(SHORTEST_INTERVAL_S)
    clock.per_look_s = 0.02  # each reading of the clock takes so long, two of them a round
    poller.round()
    clock.per_look_s = 0.0
    assert poller.due_s() == pytest.approx(1.0, abs=0.05)
    clock.per_look_s = 10.0
    poller.round()
    clock.per_look_s = 0.0
    assert poller.due_s() == pytest.approx(LONGEST_INTERVAL_S)


def run_with_limits(program: str, *arguments: Path, watches: int = 128, instances: int = 8) -> list[str]:
    """Run a program as the root of a user namespace, which has inotify limits of its own."""
    script = f"""
for name, value in {{"max_inotify_watches": {watches}, "max_inotify_instances": {instances}}}.items():
    with open("/proc/sys/user/" + name, "w") as out:
        out.write(str(value))
import os, sys
from hostagent.clock import Clock
from hostagent.tail.watching.watcher import RETRY_WATCHES_S, Watcher
class Forward(Clock):
    later_s = 0.0
    def monotonic_s(self):
        return super().monotonic_s() + self.later_s
clock = Forward()
def told(watcher):
    events = []
    clock.later_s += 1
    while more := watcher.read(0):
        events += more
    created = [event for event in events if event.kind.value == "created"]
    return sorted(os.path.basename(event.directory) + "/" + event.name for event in created)
{program}
"""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", script, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.stdout.splitlines()


@pytest.mark.requires(root=True, tools=("unshare",))
def test_directories_beyond_the_watch_limit_are_polled_until_it_is_raised(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"d{number}").mkdir()
    program = """
root = sys.argv[1]
directories = [f"{root}/d{number}" for number in range(4)]
watcher = Watcher(clock)
print([watcher.watch(directory) for directory in directories])
print(sorted(os.path.basename(directory) for directory in watcher.polled))
notice, = watcher.notices()
print(notice.subject == directories[2] + " and 1 more directories", "limit" in notice.message, "raise" in notice.hint)
for directory in directories: os.mkdir(directory + "/a")
print(told(watcher))
for directory in directories: assert watcher.watch(directory)  # again, as every scan does
with open("/proc/sys/user/max_inotify_watches", "w") as out: out.write("100")
for directory in directories: os.mkdir(directory + "/b")
clock.later_s += RETRY_WATCHES_S
print(told(watcher), watcher.polled, watcher.notices())
for directory in directories: os.mkdir(directory + "/c")
print(told(watcher))
watcher.close()
"""
    assert run_with_limits(program, tmp_path, watches=5) == [  # a directory has two of them
        "[True, True, True, True]",
        "['d2', 'd3']",
        "True True True",
        "['d0/a', 'd1/a', 'd2/a', 'd3/a']",
        "['d0/b', 'd1/b', 'd2/b', 'd3/b'] frozenset() []",
        "['d0/c', 'd1/c', 'd2/c', 'd3/c']",
    ]


@pytest.mark.requires(root=True, tools=("unshare",))
def test_a_scan_that_gets_a_watch_for_a_polled_directory_loses_nothing(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    program = """
root = sys.argv[1]
watcher = Watcher(clock)
watcher.watch(root + "/one"); watcher.watch(root + "/other")
os.mkdir(root + "/other/a")
watcher.unwatch(root + "/one")
watcher.watch(root + "/other")
os.mkdir(root + "/other/b")
print(told(watcher), watcher.polled)
"""
    assert run_with_limits(program, tmp_path, watches=2) == ["['other/a', 'other/b'] frozenset()"]


@pytest.mark.requires(root=True, tools=("unshare",))
def test_without_any_inotify_instance_everything_is_polled(tmp_path: Path) -> None:
    program = """
watcher = Watcher(clock)
print(watcher.watch(sys.argv[1]), len(watcher.polled), "max_user_instances" in watcher.notices()[0].hint)
os.mkdir(sys.argv[1] + "/a")
print(told(watcher))
os.rmdir(sys.argv[1] + "/a"); os.rmdir(sys.argv[1])
clock.later_s += 1
print([event.kind.value for event in watcher.read(0)], watcher.notices())
watcher.close()
"""
    directory = tmp_path / "logs"
    directory.mkdir()
    assert run_with_limits(program, directory, instances=0) == [
        "True 1 True",
        "['logs/a']",
        "['directory_gone'] []",
    ]


@pytest.mark.requires(root=True, tools=("bindfs",))
@pytest.mark.kernel_may_lack("FUSE")
def test_on_a_file_system_without_events_changes_made_elsewhere_are_seen(fuse_mount: tuple[Path, Path]) -> None:
    behind, mounted = fuse_mount
    watcher = Watcher(Clock())
    try:
        assert watcher.watch(str(mounted))
        assert watcher.polled == {str(mounted)}
        assert "FUSE" in watcher.notices()[0].message
        (behind / "app.log").write_bytes(b"1\n")
        created = wait_for(lambda: watcher.read(0.05), "the file to be seen")
        assert brief(created) == [(Kind.CREATED, "app.log")]
        with (behind / "app.log").open("ab") as out:
            out.write(b"2\n")
        modified = wait_for(lambda: watcher.read(0.05), "the change to be seen")
        assert brief(modified) == [(Kind.MODIFIED, "app.log")]
    finally:
        watcher.close()
