"""Real inotify on real directories: what happens is reported, whatever its name and wherever it is."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.tail.watching.watcher import Event, Kind, Watcher
from tests.support.descriptors import held


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    watcher = Watcher(Clock())
    yield watcher
    watcher.close()


def collect(watcher: Watcher) -> list[Event]:
    """Everything that is reported now."""
    events: list[Event] = []
    while more := watcher.read(0):
        events += more
    return events


def brief(events: Iterable[Event]) -> list[tuple[Kind, str]]:
    return [(event.kind, event.name) for event in events]


def test_a_files_life_is_told_names_first(watcher: Watcher, tmp_path: Path) -> None:
    assert watcher.watch(str(tmp_path))
    path = tmp_path / "app.log"
    with path.open("wb") as out:
        out.write(b"1\n")
    path.rename(tmp_path / "app.log.1")
    (tmp_path / "app.log.1").unlink()
    events = collect(watcher)
    assert brief(events) == [
        (Kind.CREATED, "app.log"),
        (Kind.MOVED_FROM, "app.log"),
        (Kind.MOVED_TO, "app.log.1"),
        (Kind.DELETED, "app.log.1"),
        (Kind.MODIFIED, "app.log"),
        (Kind.CLOSED, "app.log"),
    ]
    assert events[1].cookie == events[2].cookie != 0
    assert {event.directory for event in events} == {str(tmp_path)}


def test_a_rename_between_watched_directories_shares_a_cookie(watcher: Watcher, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        watcher.watch(str(tmp_path / name))
    (tmp_path / "one/a.log").touch()
    collect(watcher)
    (tmp_path / "one/a.log").rename(tmp_path / "other/b.log")
    away, here = collect(watcher)
    assert (away.kind, away.directory, away.name) == (Kind.MOVED_FROM, str(tmp_path / "one"), "a.log")
    assert (here.kind, here.directory, here.name) == (Kind.MOVED_TO, str(tmp_path / "other"), "b.log")
    assert away.cookie == here.cookie


def test_directories_are_told_from_files(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(str(tmp_path))
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dir").rmdir()
    told = [(event.kind, event.name, event.is_dir) for event in collect(watcher) if event.kind is not Kind.CLOSED]
    assert told == [(Kind.CREATED, "dir", True), (Kind.CREATED, "file", False), (Kind.DELETED, "dir", True)]


@pytest.mark.parametrize("name", [b"two\nlines", b"\xff\xfe\x80", b"n" * 255, b" ", "größe".encode()])
def test_any_name_is_told_as_it_is(watcher: Watcher, tmp_path: Path, name: bytes) -> None:
    watcher.watch(str(tmp_path))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    assert {os.fsencode(event.name) for event in collect(watcher)} == {name}


def test_a_flood_on_a_few_files_is_a_few_events(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(str(tmp_path))
    files = [os.open(tmp_path / f"{number}.log", os.O_WRONLY | os.O_CREAT) for number in range(3)]
    for _ in range(500):
        for fd in files:
            os.write(fd, b"line\n")
    first = watcher.read(0)
    wanted = [(kind, f"{number}.log") for kind in (Kind.CREATED, Kind.MODIFIED) for number in range(3)]
    assert len(first) == 6
    assert set(brief(first)) == set(wanted)
    for fd in files:
        os.close(fd)


def test_nothing_is_dropped_when_a_name_changes_hands(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(str(tmp_path))
    path = tmp_path / "app.log"
    old = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(old, b"x")
    path.rename(tmp_path / "app.log.1")
    new = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(new, b"x")
    os.write(old, b"x")
    assert brief(collect(watcher)) == [
        (Kind.CREATED, "app.log"),
        (Kind.MOVED_FROM, "app.log"),
        (Kind.MOVED_TO, "app.log.1"),
        (Kind.CREATED, "app.log"),
        (Kind.MODIFIED, "app.log"),
        (Kind.MODIFIED, "app.log.1"),
    ]
    os.close(old)
    os.close(new)


def test_names_are_told_without_the_writes_which_wait(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(str(tmp_path))
    (tmp_path / "app.log").write_bytes(b"line\n")
    assert watcher.has_names()
    assert brief(watcher.read_names(0)) == [(Kind.CREATED, "app.log")]
    assert not watcher.has_names()
    assert watcher.read_names(0) == []
    tmp_path.rename(tmp_path.with_name("aside"))
    assert watcher.read_names(0) == [Event(Kind.DIRECTORY_GONE, str(tmp_path))]
    assert brief(collect(watcher)) == []


def test_a_flood_of_writes_pushes_no_name_out(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(str(tmp_path))
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    files = [os.open(tmp_path / f"{number}.log", os.O_WRONLY | os.O_CREAT) for number in range(2)]
    for _ in range(most // 2 + 10):
        for fd in files:
            os.write(fd, b"line\n")
    (tmp_path / "app.log").touch()
    events = collect(watcher)
    assert Event(Kind.OVERFLOW, "") in events
    assert (Kind.CREATED, "app.log") in brief(events)
    for fd in files:
        os.close(fd)


def test_writes_to_a_deleted_file_are_still_told(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(str(tmp_path))
    fd = os.open(tmp_path / "app.log", os.O_WRONLY | os.O_CREAT)
    (tmp_path / "app.log").unlink()
    collect(watcher)
    os.write(fd, b"last words\n")
    assert brief(collect(watcher)) == [(Kind.MODIFIED, "app.log")]
    os.close(fd)


def test_more_events_than_one_read_takes_all_arrive(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(str(tmp_path))
    for number in range(4000):
        (tmp_path / f"{number}.log").touch()
    created = [event.name for event in collect(watcher) if event.kind is Kind.CREATED]
    assert created == [f"{number}.log" for number in range(4000)]


@pytest.mark.requires(root=True)
def test_lost_events_are_told(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(str(tmp_path))
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for _ in range(most // 2 + 10):
        os.close(os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT))
        os.unlink(tmp_path / "a")
    assert Event(Kind.OVERFLOW, "") in collect(watcher)
    (tmp_path / "after").touch()
    assert (Kind.CREATED, "after") in brief(collect(watcher))


def test_a_directory_that_was_replaced_is_told_and_can_be_watched_again(watcher: Watcher, tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    watcher.watch(str(directory))
    directory.rmdir()
    directory.mkdir()
    assert collect(watcher) == [Event(Kind.DIRECTORY_GONE, str(directory))]
    (directory / "unseen.log").touch()
    assert collect(watcher) == []
    assert watcher.watch(str(directory))
    (directory / "seen.log").touch()
    assert (Kind.CREATED, "seen.log") in brief(collect(watcher))


def test_a_directory_that_was_moved_is_told_once_and_no_longer_heard(watcher: Watcher, tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    watcher.watch(str(directory))
    directory.rename(tmp_path / "old")
    assert collect(watcher) == [Event(Kind.DIRECTORY_GONE, str(directory))]
    (tmp_path / "old/a.log").touch()
    (tmp_path / "old/a.log").unlink()
    (tmp_path / "old").rmdir()
    assert collect(watcher) == []
    assert not watcher.watch(str(directory))


def test_what_lies_below_a_moved_directory_is_told_to_be_gone(watcher: Watcher, tmp_path: Path) -> None:
    """The kernel tells of the directory itself only; what is below would go on being heard of under its old path."""
    below, beside = tmp_path / "a/b/c", tmp_path / "ab"
    below.mkdir(parents=True)
    beside.mkdir()
    for directory in (tmp_path / "a", below, beside):
        assert watcher.watch(str(directory))
    (tmp_path / "a").rename(tmp_path / "moved")
    (tmp_path / "moved/b/c/app.log").touch()
    (beside / "app.log").touch()
    told = {(event.kind, event.directory) for event in watcher.read(5.0)}
    assert (Kind.DIRECTORY_GONE, str(below)) in told
    assert (Kind.DIRECTORY_GONE, str(tmp_path / "a")) in told
    assert (Kind.DIRECTORY_GONE, str(beside)) not in told
    assert watcher.watch(str(tmp_path / "moved/b/c"))
    (tmp_path / "moved/b/c/app.log").rename(tmp_path / "moved/b/c/app.log.1")
    assert {event.directory for event in watcher.read(5.0)} == {str(tmp_path / "moved/b/c")}


def test_watching_again_finds_out_that_the_path_leads_elsewhere(watcher: Watcher, tmp_path: Path) -> None:
    """An ancestor was moved, or a link pointed elsewhere: the watched directory itself notices nothing."""
    for version in ("1", "2"):
        (tmp_path / version / "logs").mkdir(parents=True)
    link = tmp_path / "current"
    link.symlink_to("1")
    watcher.watch(f"{link}/logs")
    link.unlink()
    link.symlink_to("2")
    assert watcher.watch(f"{link}/logs")
    (tmp_path / "1/logs/old.log").touch()
    (tmp_path / "2/logs/new.log").touch()
    assert {event.name for event in collect(watcher)} == {"new.log"}


def test_two_paths_to_one_directory_are_both_told(watcher: Watcher, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "alias").symlink_to("logs")
    for name in ("logs", "alias"):
        assert watcher.watch(str(tmp_path / name))
    (tmp_path / "logs/a.log").mkdir()
    assert [Path(event.directory).name for event in collect(watcher)] == ["logs", "alias"]
    watcher.unwatch(str(tmp_path / "logs"))
    (tmp_path / "logs/b.log").mkdir()
    assert [Path(event.directory).name for event in collect(watcher)] == ["alias"]
    watcher.unwatch(str(tmp_path / "alias"))
    (tmp_path / "logs/c.log").mkdir()
    assert collect(watcher) == []
    assert watcher.watch(str(tmp_path / "alias"))
    (tmp_path / "logs").rename(tmp_path / "gone")
    assert collect(watcher) == [Event(Kind.DIRECTORY_GONE, str(tmp_path / "alias"))]


@pytest.mark.parametrize("kind", ["missing", "file", "loop", "below a file"])
def test_what_is_no_directory_is_not_watched(watcher: Watcher, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "there"
    if kind == "file":
        path.touch()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "below a file":
        path.touch()
        path = path / "deeper"
    assert watcher.watch(str(path)) is False
    assert bool(watcher.notices()) is (kind == "loop")
    assert watcher.polled == frozenset()


def test_a_directory_in_a_container_is_watched_inside_its_root(watcher: Watcher, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (root / "logs").symlink_to("/data")
    (root / "evil").symlink_to(tmp_path / "outside")
    assert watcher.watch(f"{root}/logs", root=str(root))
    assert not watcher.watch(f"{root}/evil", root=str(root))
    (root / "data/a.log").mkdir()
    (tmp_path / "outside/b.log").mkdir()
    assert collect(watcher) == [Event(Kind.CREATED, f"{root}/logs", "a.log", 0, is_dir=True)]


@pytest.mark.requires(root=True)
def test_an_unmounted_directory_is_gone(tmp_path: Path) -> None:
    program = """
import subprocess, sys
from hostagent.clock import Clock
from hostagent.tail.watching.watcher import Watcher
directory = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "none", directory], check=True)
watcher = Watcher(Clock())
assert watcher.watch(directory)
open(directory + "/a.log", "w").close()
print([event.kind.value for event in watcher.read(10)])
subprocess.run(["umount", directory], check=True)
print([event.kind.value for event in watcher.read(10)])
"""
    done = in_mount_namespace(program, tmp_path)
    assert done.splitlines() == ["['created', 'closed']", "['directory_gone']"]


def in_mount_namespace(program: str, *arguments: Path) -> str:
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", program, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def test_waiting_ends_with_the_first_event(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(str(tmp_path))
    got: list[Event] = []
    reader = threading.Thread(target=lambda: got.extend(watcher.read(None)))
    reader.start()
    (tmp_path / "a.log").mkdir()
    reader.join(30)
    assert brief(got) == [(Kind.CREATED, "a.log")]


def test_waiting_ends_when_woken_from_another_thread(watcher: Watcher) -> None:
    reader = threading.Thread(target=watcher.read, args=(None,))
    reader.start()
    watcher.wake()
    reader.join(30)
    assert not reader.is_alive()
    assert watcher.read(0) == []


def test_being_woken_before_waiting_counts_once(watcher: Watcher) -> None:
    for _ in range(3):
        watcher.wake()
    assert watcher.read(None) == []
    begun_s = time.monotonic()
    assert watcher.read(0.05) == []
    assert time.monotonic() - begun_s >= 0.05


def test_closing_gives_everything_back_and_waking_then_does_nothing(tmp_path: Path) -> None:
    before = held()
    watcher = Watcher(Clock())
    watcher.watch(str(tmp_path))
    watcher.close()
    assert held() == before
    reused = os.open("/dev/null", os.O_RDONLY)
    watcher.wake()
    os.close(reused)


def test_watching_and_failing_to_watch_leaks_no_descriptor(watcher: Watcher, tmp_path: Path) -> None:
    before = held()
    for _ in range(50):
        watcher.watch(str(tmp_path))
        watcher.watch(str(tmp_path / "none"))
        watcher.unwatch(str(tmp_path))
    assert held() == before
