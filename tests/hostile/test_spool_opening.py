"""A spool that can't be opened at start is tried again while delivery goes on; what it holds is then delivered."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hostile.scene import Scene, append, as_nobody, numbered
from tests.support.directories import anyones_directory

OLD, FRESH = numbered("old", range(300)), numbered("fresh", range(50))


@pytest.fixture
def scene() -> Iterator[Scene]:
    with anyones_directory() as directory, Scene(directory) as one:
        one.config["outputs"]["main"]["spool"] = {"reserve_bytes": 0}
        one.config["outputs"]["side"] = {"type": "file", "path": f"{directory}/agent/side.ndjson"}
        yield one


def spool_of(scene: Scene) -> Path:
    return scene.directory / "agent/state/spool/main"


def spool_some(scene: Scene) -> None:
    """Have lines in the spool, and the agent killed."""
    scene.backend.behave("refuse")
    append(scene.logs / "a.log", *OLD)
    scene.start()
    scene.wait(lambda: scene.output_status()["behind_bytes"] == 0, "the lines to be spooled")
    scene.kill()


def told(scene: Scene) -> str:
    return str(scene.notices().get("spool main", ""))


def side(scene: Scene) -> int:
    path = scene.directory / "agent/side.ndjson"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def delivers_without_it_and_with_it(scene: Scene, heal: object, why: str) -> None:
    """The rest of each test: started on a spool that can't be opened, and `heal` called later."""
    scene.backend.behave()
    scene.start()
    assert why in told(scene)
    assert 'hostagent_spool_usable{output="main"} 0' in scene.agent.get("/metrics")[1]
    append(scene.logs / "b.log", *FRESH)
    scene.expect(*FRESH)
    scene.wait(lambda: side(scene) == len(OLD) + len(FRESH), "the other output")
    assert scene.agent.get("/healthz")[0] == 200
    assert why in told(scene)
    assert callable(heal)
    heal()
    scene.expect(*FRESH, *OLD)
    scene.wait(lambda: not told(scene), "the notice to be gone")
    assert 'hostagent_spool_usable{output="main"} 1' in scene.agent.get("/metrics")[1]
    assert scene.losses() == []


def is_used_again(scene: Scene) -> None:
    """A spool that was opened late is like any other."""
    scene.backend.behave("refuse")
    append(scene.logs / "b.log", "later")
    scene.wait(lambda: scene.output_status()["behind_bytes"] == 0, "the line to be spooled")
    scene.restart()
    scene.backend.behave()
    scene.expect(*FRESH, *OLD, "later")


@pytest.mark.requires(root=True, tools=["setpriv"])
@pytest.mark.parametrize("part", ["", ".."])
def test_a_directory_without_permission(scene: Scene, part: str) -> None:
    as_nobody(scene.agent)
    spool_some(scene)
    closed = spool_of(scene) / part
    closed.chmod(0)
    delivers_without_it_and_with_it(scene, lambda: closed.chmod(0o750), "Permission denied")


@pytest.mark.parametrize("name", ["cursor", "segments"])
def test_a_fifo_where_a_file_should_be(scene: Scene, name: str) -> None:
    spool_some(scene)
    file, kept = spool_of(scene) / name, scene.directory / "kept"
    file.rename(kept)
    os.mkfifo(file)
    delivers_without_it_and_with_it(scene, lambda: kept.replace(file), "Illegal seek")


@contextmanager
def mounted(place: Path, kind: str) -> Iterator[None]:
    """A filesystem of its own at a place, which it hides meanwhile."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", kind, "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.requires(root=True, tools=["mount"])
def test_a_filesystem_that_was_mounted_read_only(scene: Scene) -> None:
    with mounted(spool_of(scene).parent, "size=64m"):
        spool_some(scene)

        def remount(mode: str) -> None:
            subprocess.run(["mount", "-o", f"remount,{mode}", str(spool_of(scene).parent)], check=True)

        remount("ro")
        delivers_without_it_and_with_it(scene, lambda: remount("rw"), "Read-only")
        scene.kill()


@pytest.mark.requires(root=True, tools=["mount"])
def test_a_filesystem_that_takes_no_more_files(scene: Scene) -> None:
    with mounted(spool_of(scene).parent, "size=64m"):
        spool_some(scene)
        (spool_of(scene) / "lock").unlink()
        inodes = os.statvfs(spool_of(scene)).f_files - os.statvfs(spool_of(scene)).f_ffree

        def allow(number: int) -> None:
            subprocess.run(["mount", "-o", f"remount,nr_inodes={number}", str(spool_of(scene).parent)], check=True)

        allow(inodes)
        delivers_without_it_and_with_it(scene, lambda: allow(inodes + 100), "No space left")
        scene.kill()


def test_a_spool_that_another_process_has(scene: Scene) -> None:
    spool_some(scene)
    with (spool_of(scene) / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        delivers_without_it_and_with_it(scene, lambda: fcntl.flock(lock, fcntl.LOCK_UN), "in use by another hostagent")
        is_used_again(scene)


def test_what_it_holds_goes_first_when_the_backend_was_down_all_the_time(scene: Scene) -> None:
    spool_some(scene)
    with (spool_of(scene) / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scene.start()
        append(scene.logs / "b.log", *FRESH)
        scene.wait(lambda: scene.output_status()["state"] == "retrying", "a try")
        scene.wait(lambda: side(scene) == len(OLD) + len(FRESH), "the other output")
        assert scene.output_status()["behind_bytes"] > 0
    scene.wait(lambda: scene.output_status()["behind_bytes"] == 0, "the spool to take what waits")
    scene.backend.behave()
    scene.wait(lambda: len(scene.messages()) >= len(OLD) + len(FRESH), "every line")
    assert scene.messages() == [*OLD, *FRESH]
