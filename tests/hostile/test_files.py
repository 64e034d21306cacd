"""Files that no log should be: each is told of once, none ends the agent, and the files beside it are read on."""

import base64
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.scene import Scene, append, as_nobody, numbered, rss_peak_bytes
from tests.support.directories import anyones_directory, ext4_disk

MIB = 1 << 20


def content_of(scene: Scene, name: str) -> bytes:
    """What the records of a file add up to, piece by piece."""
    found = b""
    for record in scene.take():
        if os.path.basename(record["path"]) == name:
            raw = record["message"].encode() if "message" in record else base64.b64decode(record["message_base64"])
            found += raw if record.get("partial") else raw + b"\n"
    return found


def test_every_byte_of_an_enormous_line_arrives_in_bounded_memory(scene: Scene) -> None:
    size = 128 * MIB
    with (scene.logs / "huge.log").open("wb") as log:
        for _ in range(size // (16 * MIB)):
            log.write(b"x" * (16 * MIB))
        log.write(b"\nafter\n")
    scene.start()
    total = pieces = 0
    after = False

    def all_there() -> bool:
        nonlocal total, pieces, after
        for arrival in scene.backend.new_arrivals():
            for record in arrival.records():
                after = after or record["message"] == "after"
                if record["message"] != "after":
                    assert not record["message"].strip("x")
                    total += len(record["message"])
                    pieces += bool(record.get("partial"))
        return after

    scene.wait(all_there, "the line after", timeout_s=90)
    assert total == size
    assert pieces >= size // MIB - 1
    peak = rss_peak_bytes(scene.agent.pid)
    assert peak < 128 * MIB, f"{peak / MIB:.0f} MiB"


def test_holes_and_all_byte_values_come_back(scene: Scene) -> None:
    scene.source.update(invalid_utf8="base64", max_line_bytes="64KiB")
    every_byte = bytes(range(256)) * 300 + b"\n"
    (scene.logs / "bytes.log").write_bytes(every_byte)
    with (scene.logs / "holes.log").open("wb") as log:
        log.write(b"begin\n")
        os.ftruncate(log.fileno(), 3 * MIB)
        log.seek(0, os.SEEK_END)
        log.write(b"\nend\n")
    scene.start()
    holes = b"begin\n" + bytes(3 * MIB - 6) + b"\nend\n"
    scene.wait(lambda: content_of(scene, "holes.log") == holes, "the file with the hole")
    scene.wait(lambda: content_of(scene, "bytes.log") == every_byte, "every byte")


def test_what_only_looks_like_a_log_is_told_once_and_forgotten_when_it_goes(scene: Scene) -> None:
    os.mkfifo(scene.logs / "pipe.log")
    os.mknod(scene.logs / "device.log", stat.S_IFCHR | 0o600, os.makedev(1, 5)) if os.geteuid() == 0 else None
    (scene.logs / "loop.log").symlink_to("loop.log")
    (scene.logs / "folder.log").mkdir()
    append(scene.logs / "good.log", "one")
    os.mknod(scene.logs / "socket.log", stat.S_IFSOCK | 0o600)
    scene.start()
    scene.expect("one")
    bad = ["pipe.log", "loop.log", "socket.log"] + (["device.log"] if os.geteuid() == 0 else [])
    scene.wait(lambda: scene.status()["notices"], "notices")
    rescans = scene.metric("hostagent_rescans_total")
    scene.wait(lambda: scene.metric("hostagent_rescans_total") > rescans + 1, "more scans")
    notices = scene.notices()
    for name in bad:
        assert len(notices[str(scene.logs / name)]) == 1, notices
    for name in bad:
        (scene.logs / name).unlink()
    scene.wait(lambda: not scene.notices(), "the notices to go with what they tell of")
    append(scene.logs / "pipe.log", "a log at last")
    append(scene.logs / "good.log", "two")
    scene.expect("one", "two", "a log at last")


def test_a_single_run_ends_with_what_it_could_not_read(scene: Scene) -> None:
    os.mkfifo(scene.logs / "pipe.log")
    append(scene.logs / "good.log", "one")
    run = scene.agent.run_once()
    assert run.returncode == 0
    assert "pipe.log" in run.stderr
    scene.expect("one")


def test_no_notice_stays_of_irregular_files_that_come_and_go(scene: Scene) -> None:
    scene.start()
    for number in range(300):
        os.mkfifo(scene.logs / f"pipe{number}.log")
    scene.wait(lambda: len(scene.notices()) >= 100, "notices")
    for number in range(300):
        (scene.logs / f"pipe{number}.log").unlink()
    scene.wait(lambda: not scene.notices(), "the notices to go")


def deliver_what_a_directory_holds(scene: Scene) -> list[str]:
    """Twenty lines of `app/a.log`, which have arrived."""
    (scene.logs / "app").mkdir()
    first = numbered("a", range(20))
    append(scene.logs / "app/a.log", *first)
    scene.start()
    scene.expect(*first)
    return first


def test_a_directory_that_is_moved_away_and_back_is_not_read_twice(scene: Scene) -> None:
    scene.source["include"] = [f"{scene.logs}/app/*.log"]
    first = deliver_what_a_directory_holds(scene)
    os.rename(scene.logs / "app", scene.logs / "away")
    scene.wait(lambda: not scene.files(), "the files to be given up")
    os.rename(scene.logs / "away", scene.logs / "app")
    append(scene.logs / "app/a.log", "back")
    scene.expect(*first, "back")
    scene.restart()
    append(scene.logs / "app/a.log", "after the restart")
    scene.expect(*first, "back", "after the restart")


def test_a_directory_that_is_away_while_the_agent_stops_is_not_read_twice(scene: Scene) -> None:
    scene.source["include"] = [f"{scene.logs}/app/*.log"]
    first = deliver_what_a_directory_holds(scene)
    os.rename(scene.logs / "app", scene.logs / "away")
    scene.wait(lambda: not scene.files(), "the files to be given up")
    scene.restart()
    os.rename(scene.logs / "away", scene.logs / "app")
    append(scene.logs / "app/a.log", "back")
    scene.expect(*first, "back")


def test_a_directory_that_is_missing_at_a_start_and_comes_back_is_not_read_twice(scene: Scene) -> None:
    scene.source["include"] = [f"{scene.logs}/app/*.log", f"{scene.logs}/*.log"]
    first = deliver_what_a_directory_holds(scene)
    assert scene.agent.stop() == 0
    os.rename(scene.logs / "app", scene.directory / "away")
    scene.start()
    assert [loss[0] for loss in scene.losses()] == ["a.log"]
    os.rename(scene.directory / "away", scene.logs / "app")
    append(scene.logs / "app/a.log", "back")
    scene.expect(*first, "back")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """An ext4 filesystem: its image and its mount point."""
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    with ext4_disk(image, mounted):
        yield image, mounted


@pytest.mark.requires(root=True, tools=["mkfs.ext4", "mount"])
def test_a_file_system_that_is_unmounted_and_comes_back_is_not_read_twice(
    scene: Scene, disk: tuple[Path, Path]
) -> None:
    image, mounted = disk
    scene.source["include"].append(f"{mounted}/*.log")
    first = numbered("m", range(20))
    append(mounted / "m.log", *first)
    append(scene.logs / "good.log", "one")
    scene.start()
    scene.expect(*first, "one")
    # Lazily: the agent holds the file open, and an administrator who must have the disk back does it so.
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)
    append(scene.logs / "good.log", "two")
    scene.expect(*first, "one", "two")
    scene.wait(lambda: len(scene.files()) == 1, "the file to be given up")
    loops = ["losetup", "-j", str(image)]
    scene.wait(lambda: not subprocess.run(loops, capture_output=True, check=True).stdout, "the device to be let go")
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    append(mounted / "m.log", "back")
    scene.expect(*first, "one", "two", "back")


@pytest.mark.requires(root=True, tools=["mkfs.ext4", "mount"])
def test_a_disk_that_gives_errors_stops_no_other_file(scene: Scene, disk: tuple[Path, Path]) -> None:
    image, mounted = disk
    scene.source["include"].append(f"{mounted}/*.log")
    (mounted / "broken.log").write_bytes(b"can't be read soon\n" * 400_000)
    subprocess.run(["umount", str(mounted)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    os.truncate(image, 2 * MIB)  # the device ends in the middle of the file: reads fail with EIO
    append(scene.logs / "good.log", "one")
    scene.start()
    scene.wait(lambda: "one" in scene.messages(), "the file beside it")
    scene.wait(lambda: str(mounted / "broken.log") in scene.notices(), "the file to be told of")
    append(scene.logs / "good.log", "two")
    scene.wait(lambda: "two" in scene.messages(), "the file beside it again")


@pytest.mark.requires(root=True, tools=["setpriv"])
def test_permission_that_is_denied_and_given_later() -> None:
    with anyones_directory() as directory, Scene(directory) as scene:
        as_nobody(scene.agent)
        closed = scene.logs / "closed"
        scene.source["include"] += [f"{closed}/*.log"]
        append(scene.logs / "denied.log", "denied")
        (scene.logs / "denied.log").chmod(0o600)
        append(scene.logs / "good.log", "one")
        scene.start()
        scene.expect("one")
        closed.mkdir(mode=0o700)
        append(closed / "inner.log", "inner")
        denied = scene.wait(lambda: scene.notices().get(str(scene.logs / "denied.log")), "the notice")
        assert len(denied) == 1
        scene.wait(lambda: str(closed) in scene.notices(), "the notice of the directory")
        (scene.logs / "denied.log").chmod(0o644)
        scene.expect("one", "denied")
        closed.chmod(0o755)
        scene.expect("one", "denied", "inner")
        scene.wait(lambda: not scene.notices(), "the notices to go")


@pytest.mark.requires(root=True, tools=["setpriv"])
def test_permission_on_a_directory_that_is_taken_and_given_back_repeats_nothing() -> None:
    with anyones_directory() as directory, Scene(directory) as scene:
        as_nobody(scene.agent)
        inner = scene.logs / "inner"
        inner.mkdir()
        scene.source["include"] = [f"{inner}/*.log", f"{scene.logs}/*.log"]
        lines = numbered("i", range(20))
        append(inner / "inner.log", *lines)
        append(scene.logs / "good.log", "one")
        scene.start()
        scene.expect("one", *lines)
        inner.chmod(0o700)
        scene.wait(lambda: str(inner) in scene.notices(), "the notice")
        append(inner / "inner.log", "written meanwhile")
        append(scene.logs / "good.log", "two")
        scene.wait(lambda: "two" in scene.messages(), "the other file")
        inner.chmod(0o755)
        append(inner / "inner.log", "given back")
        scene.expect("one", "two", *lines, "written meanwhile", "given back")


@pytest.mark.requires(root=True, tools=["setpriv"])
def test_a_file_that_grows_as_it_gets_readable_need_not_wait_for_a_scan() -> None:
    with anyones_directory() as directory, Scene(directory) as scene:
        as_nobody(scene.agent)
        scene.config["limits"]["rescan_interval"] = "1h"
        append(scene.logs / "denied.log", "before")
        (scene.logs / "denied.log").chmod(0o600)
        scene.start()
        scene.wait(lambda: str(scene.logs / "denied.log") in scene.notices(), "the notice")
        (scene.logs / "denied.log").chmod(0o644)
        append(scene.logs / "denied.log", "after")
        scene.expect("before", "after")


def test_names_of_any_bytes_survive_a_restart_and_a_kill(scene: Scene) -> None:
    names = [b"two\nlines.log", b"\xff\xfe\x80.log", b"n" * 251 + b".log", b"%s%n.log", b"\x1b[31m.log"]
    paths = [Path(os.fsdecode(os.fsencode(scene.logs) + b"/" + name)) for name in names]
    written = []
    for turn in ("first", "second", "third"):
        for number, path in enumerate(paths):
            append(path, f"{number} {turn}")
            written.append(f"{number} {turn}")
        scene.start()
        scene.expect(*written)
        assert scene.agent.call("status").returncode == 0
        assert scene.agent.call("files").returncode == 0
        if turn == "first":
            assert scene.agent.stop() == 0
        elif turn == "second":
            scene.agent.kill()


def test_an_empty_file_costs_nothing_and_its_first_line_arrives(scene: Scene) -> None:
    for number in range(3):
        (scene.logs / f"empty{number}.log").touch()
    scene.start()
    append(scene.logs / "empty1.log", "no more")
    scene.expect("no more")
    scene.restart()
    append(scene.logs / "empty2.log", "nor this")
    scene.expect("no more", "nor this")
    assert scene.losses() == []


def test_a_file_replaced_by_a_directory_and_back(scene: Scene) -> None:
    path = scene.logs / "app.log"
    append(path, "one")
    scene.start()
    scene.expect("one")
    path.unlink()
    path.mkdir()
    append(scene.logs / "good.log", "two")
    scene.expect("one", "two")
    path.rmdir()
    append(path, "three")
    scene.expect("one", "two", "three")
    os.mkfifo(scene.logs / "fifo")
    os.rename(scene.logs / "fifo", path)
    append(scene.logs / "good.log", "four")
    scene.expect("one", "two", "three", "four")
    (scene.logs / "next").write_text("five\n")
    os.rename(scene.logs / "next", path)
    scene.expect("one", "two", "three", "four", "five")


def test_a_hard_link_in_another_source_is_read_once_also_after_restarts(scene: Scene) -> None:
    other = scene.directory / "other"
    other.mkdir()
    # The source that gets the link stands first: it is asked first after a restart.
    scene.config["sources"] = {
        "link": {"type": "file", "include": [f"{other}/*.log"]},
        "app": scene.source,
    }
    lines = numbered("a", range(20))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.expect(*lines)
    os.link(scene.logs / "a.log", other / "b.log")
    append(other / "b.log", "through the link")
    scene.expect(*lines, "through the link")
    scene.restart()
    append(scene.logs / "a.log", "after a restart")
    scene.expect(*lines, "through the link", "after a restart")
    (scene.logs / "a.log").unlink()
    append(other / "b.log", "by its other name")
    scene.expect(*lines, "through the link", "after a restart", "by its other name")
    scene.restart()
    append(other / "b.log", "the end")
    scene.expect(*lines, "through the link", "after a restart", "by its other name", "the end")


def test_what_is_born_while_the_agent_is_away_is_read_from_its_beginning(scene: Scene) -> None:
    """`start_at: end` is for what was there first. That all the source had is gone by then changes nothing."""
    scene.source["start_at"] = "end"
    path = scene.logs / "app.log"
    append(path, "before the agent")
    scene.start()
    scene.wait(scene.files, "the file to be met")
    append(path, "one")
    scene.expect("one")
    path.unlink()
    scene.wait(lambda: not scene.files(), "the file to be let go")
    assert scene.agent.stop() == 0
    append(path, "two")
    scene.start()
    scene.expect("one", "two")


def test_a_source_that_gets_another_name_goes_on_where_it_was(scene: Scene) -> None:
    lines = numbered("a", range(20))
    append(scene.logs / "a.log", *lines)
    scene.start()
    scene.expect(*lines)
    assert scene.agent.stop() == 0
    scene.config["sources"] = {"renamed": scene.source}
    append(scene.logs / "a.log", "new")
    scene.start()
    scene.expect(*lines, "new")
