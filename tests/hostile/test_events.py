"""What can happen to a log file, each while the agent runs, while it is stopped and while it is dead."""

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hostile.scene import Scene, append, numbered
from tests.support.packages import install_module, seen_by_agents

HOW = ("running", "stopped", "killed")


@pytest.fixture(params=HOW)
def meanwhile(request: pytest.FixtureRequest, scene: Scene) -> Callable[[Callable[[], None]], None]:
    """Have something happen while the agent is in one of three states; it runs again afterwards."""
    how: str = request.param

    def happen(event: Callable[[], None]) -> None:
        if how == "stopped":
            assert scene.agent.stop() == 0, scene.agent.tail()
        elif how == "killed":
            # Else the kill may find a block in flight, and what is gone by the next start is told with it.
            scene.wait(lambda: scene.output_status()["unacked_blocks"] == 0, "the positions to be committed")
            scene.kill()
        event()
        if how != "running":
            scene.start()

    return happen


Meanwhile = Callable[[Callable[[], None]], None]


def begin(scene: Scene, name: str = "app.log", count: int = 20) -> list[str]:
    lines = numbered(name, range(count))
    append(scene.logs / name, *lines)
    scene.start()
    scene.expect(*lines)
    return lines


def rewrite(path: Path, lines: list[str]) -> None:
    """As `> app.log` does and a program that opens its log anew on every start."""
    path.write_text("".join(f"{line}\n" for line in lines))


def test_renamed_and_created(scene: Scene, meanwhile: Meanwhile) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)

    def rotate() -> None:
        append(path, "last of the old")
        path.rename(scene.logs / "app.log.1")
        append(path, "first of the new")

    meanwhile(rotate)
    scene.expect(*lines, "last of the old", "first of the new")
    assert scene.losses() == []


def test_renamed_while_its_writer_goes_on(scene: Scene, meanwhile: Meanwhile) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)
    with path.open("a") as writer:

        def rotate() -> None:
            path.rename(scene.logs / "app.log.1")
            append(path, "new")
            writer.write("late\n")
            writer.flush()

        meanwhile(rotate)
        scene.expect(*lines, "late", "new")
        writer.write("later still\n")
        writer.flush()
        scene.expect(*lines, "late", "new", "later still")


@pytest.mark.parametrize("include", ["app.log", "app.log*"])
def test_copied_and_truncated(scene: Scene, meanwhile: Meanwhile, include: str) -> None:
    scene.source["include"] = [f"{scene.logs}/{include}"]
    path = scene.logs / "app.log"
    lines = begin(scene)

    def rotate() -> None:
        append(path, "only in the copy" if include == "app.log*" else lines[-1] + " again")
        shutil.copyfile(path, scene.logs / "app.log.1")
        os.truncate(path, 0)
        append(path, "first after the truncate")

    meanwhile(rotate)
    last = "only in the copy" if include == "app.log*" else lines[-1] + " again"
    scene.expect(*lines, last, "first after the truncate")
    scene.wait(lambda: [loss[3] for loss in scene.losses()] == ["copytruncate"], "the ledger")
    append(path, "second")
    scene.expect(*lines, last, "first after the truncate", "second")


def test_truncated_and_grown_past_the_position(scene: Scene, meanwhile: Meanwhile) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)
    again = numbered("second life", range(100))
    meanwhile(lambda: rewrite(path, again))
    scene.expect(*lines, *again)
    scene.wait(lambda: [loss[3] for loss in scene.losses()] == ["truncated"], "the ledger")


def test_truncated_and_grown_to_exactly_the_same_size(scene: Scene, meanwhile: Meanwhile) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)
    again = [line.replace("line", "LINE") for line in lines]
    meanwhile(lambda: rewrite(path, again))
    scene.expect(*lines, *again)


def test_rotated_and_compressed(scene: Scene, meanwhile: Meanwhile) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)

    def rotate() -> None:
        append(path, "only in the .gz")
        with path.open("rb") as plain, gzip.open(scene.logs / "app.log.1.gz", "wb") as packed:
            shutil.copyfileobj(plain, packed)
        path.unlink()
        append(path, "new")

    meanwhile(rotate)
    scene.expect(*lines, "only in the .gz", "new")


@pytest.mark.parametrize("include", ["app.log", "app.log*"])
def test_rotated_and_compressed_while_down_by_a_compressor_that_died(scene: Scene, include: str) -> None:
    """What it had written is delivered; that there was more is not known to anybody but the ledger."""
    scene.source["include"] = [f"{scene.logs}/{include}"]
    path = scene.logs / "app.log"
    lines = begin(scene)
    assert scene.agent.stop() == 0
    append(path, *(f"{line} {os.urandom(20).hex()}" for line in numbered("unread", range(1000))))
    packed = gzip.compress(path.read_bytes())
    (scene.logs / "app.log.1.gz").write_bytes(packed[: len(packed) // 2])
    path.unlink()
    append(path, "new")
    scene.start()
    scene.wait(scene.losses, "the ledger")
    scene.wait(lambda: len(scene.messages()) > len(lines) + 100, "what there is")
    ((name, start, end, reason),) = scene.losses()
    assert (name, end, reason) == ("app.log", None, "copy_damaged")
    scene.wait(lambda: "new" in scene.messages(), "the new file")
    assert sum(len(line) + 1 for line in scene.messages()) == start + len("new\n") + 1  # the last line has no end


def test_rotated_and_compressed_twice_while_down(scene: Scene) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)
    assert scene.agent.stop() == 0
    append(path, "unread")
    path.rename(scene.logs / "app.log.2")
    append(scene.logs / "app.log.1", "never seen by anybody")
    append(path, "new")
    with (scene.logs / "app.log.2").open("rb") as plain, gzip.open(scene.logs / "app.log.2.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    (scene.logs / "app.log.2").unlink()
    scene.start()
    scene.expect(*lines, "unread", "new")


def test_deleted(scene: Scene, meanwhile: Meanwhile, request: pytest.FixtureRequest) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)
    running = "running" in request.node.name

    def delete() -> None:
        append(path, "unread")
        path.unlink()

    meanwhile(delete)
    if running:
        scene.expect(*lines, "unread")
        assert scene.losses() == []
    else:
        size = sum(len(line) + 1 for line in lines)
        scene.wait(lambda: scene.losses() == [("app.log", size, None, "deleted")], "the ledger")
    append(path, "another life")
    scene.wait(lambda: "another life" in scene.messages(), "the new file")
    scene.restart()
    assert len(scene.losses()) == (0 if running else 1), "the same loss was told twice"


def test_deleted_while_a_writer_holds_it(scene: Scene) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)
    with path.open("a") as writer:
        path.unlink()
        for number in range(5):
            writer.write(f"beyond {number}\n")
            writer.flush()
        scene.expect(*lines, *(f"beyond {number}" for number in range(5)))
        append(path, "new")
        scene.expect(*lines, *(f"beyond {number}" for number in range(5)), "new")


def test_an_inode_that_is_used_again(scene: Scene, meanwhile: Meanwhile) -> None:
    path = scene.logs / "app.log"
    wanted = begin(scene)
    for turn in range(5):
        fresh = numbered(f"turn {turn}", range(3))

        def reuse(fresh: list[str] = fresh) -> None:
            path.unlink()
            append(path, *fresh)

        meanwhile(reuse)
        wanted += fresh
        scene.expect(*wanted)


def test_replaced_by_a_file_with_the_same_beginning(scene: Scene, meanwhile: Meanwhile) -> None:
    path = scene.logs / "app.log"
    head = ["# Software: the same header in every file of this kind " + "x" * 1200]
    append(path, *head, "first")
    scene.start()
    scene.expect(*head, "first")

    def replace() -> None:
        append(scene.logs / "fresh", *head, "second", "third")
        os.replace(scene.logs / "fresh", path)

    meanwhile(replace)
    scene.expect(*head, "first", *head, "second", "third")


def test_one_file_under_two_paths(scene: Scene, meanwhile: Meanwhile) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)

    def link() -> None:
        os.link(path, scene.logs / "hard.log")
        (scene.logs / "soft.log").symlink_to(path)
        append(path, "once")

    meanwhile(link)
    scene.expect(*lines, "once")
    meanwhile(path.unlink)
    append(scene.logs / "hard.log", "through the other name")
    scene.expect(*lines, "once", "through the other name")


def test_an_unfinished_line(scene: Scene, meanwhile: Meanwhile) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)
    with path.open("a") as log:
        log.write("begun")
    append(scene.logs / "other.log", "beside it")
    scene.expect(*lines, "beside it")

    def finish() -> None:
        with path.open("a") as log:
            log.write(" and ended\n")

    meanwhile(finish)
    scene.expect(*lines, "beside it", "begun and ended")


def test_an_unfinished_line_at_the_end_of_a_rotated_file(scene: Scene, meanwhile: Meanwhile) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)

    def rotate() -> None:
        with path.open("a") as log:
            log.write("the end without a newline")
        path.rename(scene.logs / "app.log.1")
        append(path, "new")

    meanwhile(rotate)
    scene.expect(*lines, "the end without a newline", "new")


def test_a_long_line(scene: Scene, meanwhile: Meanwhile) -> None:
    scene.source["max_line_bytes"] = "10KiB"
    path = scene.logs / "app.log"
    lines = begin(scene)
    with path.open("a") as log:
        log.write("y" * 25_000)
    scene.wait(lambda: len(scene.messages()) == len(lines) + 2, "the pieces that are full")
    meanwhile(lambda: append(path, "y" * 5_000))
    scene.expect(*lines, "y" * 10_240, "y" * 10_240, "y" * (30_000 - 2 * 10_240))
    marks = [record.get("partial") for record in scene.take() if record["message"].startswith("y")]
    assert marks == [True, True, None]


STAMP = "2025-01-02T03:04:05.000000006Z stdout"


def test_a_cri_line_in_parts_across_a_rotation(scene: Scene, meanwhile: Meanwhile) -> None:
    scene.source["format"] = "cri"
    path = scene.logs / "app.log"
    append(path, f"{STAMP} F whole", f"{STAMP} P first part, ")
    scene.start()
    scene.expect("whole")

    def rotate() -> None:
        path.rename(scene.logs / "app.log.20250102")
        append(path, f"{STAMP} P second part, ", f"{STAMP} F last part", f"{STAMP} F next")

    meanwhile(rotate)
    scene.expect("whole", "first part, second part, last part", "next")


def test_a_group_of_lines_across_a_rotation(scene: Scene, meanwhile: Meanwhile) -> None:
    # No group's time is up in this test, so none may be cut in two.
    scene.source["multiline"] = {"start": "^[A-Z]", "flush_after": "1h"}
    path = scene.logs / "app.log"
    append(path, "Whole", "Begins here", "  goes on")
    scene.start()
    scene.wait(lambda: "Whole" in scene.messages(), "the first group")

    def rotate() -> None:
        path.rename(scene.logs / "app.log.1")
        append(path, "  and on", "Next", "Last", "Open")

    meanwhile(rotate)
    scene.wait(lambda: "Last" in scene.messages(), "the last group")
    assert scene.messages() == ["Whole", "Begins here\n  goes on\n  and on", "Next", "Last"]


class Torn(NamedTuple):
    """What an old file has, how it ends, what the new one has, and which records that is."""

    options: dict[str, object]
    before: list[str]
    torn: str
    after: list[str]
    records: list[str]


CRI_TORN = Torn(
    {"format": "cri"},
    [f"{STAMP} F whole"],
    f"{STAMP} F torn li",
    [f"{STAMP} F next", f"{STAMP} F last"],
    ["whole", "torn li", "next", "last"],
)
GROUP_TORN = Torn(
    {"multiline": {"start": "^[A-Z]", "flush_after": "60s"}},
    ["Whole", "Begins here", "  goes on"],
    "  torn li",
    ["Next", "Last", "Open"],
    ["Whole", "Begins here\n  goes on\n  torn li", "Next", "Last"],
)


@pytest.mark.parametrize("case", [CRI_TORN, GROUP_TORN], ids=["cri", "multiline"])
def test_a_line_that_was_never_finished_takes_nothing_from_the_file_after_it(scene: Scene, case: Torn) -> None:
    scene.source.update(case.options)
    path = scene.logs / "app.log"
    append(path, *case.before)
    scene.start()
    scene.expect(case.records[0])
    with path.open("a") as log:
        log.write(case.torn)
    path.rename(scene.logs / "app.log.1")
    append(path, *case.after)
    scene.expect(*case.records)


def test_part_of_a_line_behind_a_group_has_a_time_of_its_own(scene: Scene) -> None:
    scene.source.update({"multiline": {"start": "^[A-Z]", "flush_after": "500ms"}, "flush_partial_after": "60s"})
    path = scene.logs / "app.log"
    path.write_text("Whole\nHalf of")
    scene.start()
    scene.expect("Whole")
    with path.open("a") as log:
        log.write(" a line\nNext\n")
    scene.expect("Whole", "Half of a line", "Next")


PATIENCE_S = 5
# With the record before a line's first part comes the cue in another file; the agent is busy with that until the time
# of the first part is up, and the second part is written meanwhile.
DAWDLES = """
import os
import time
import msgspec
from hostagent.hookspecs import Component, hookimpl

class Options(msgspec.Struct, frozen=True):
    path: str
    busy_for: float

class Dawdling:
    def __init__(self, options, wiring):
        self.options = options

    def process(self, batch):
        if b"whole" in batch.text.data:
            with open(os.path.dirname(self.options.path) + "/other.log", "a") as other:
                other.write("dawdle\\n")
        if b"dawdle" in batch.text.data:
            time.sleep(self.options.busy_for)
            with open(self.options.path, "a") as log:
                log.write("second part, ")
        return [batch]

@hookimpl
def hostagent_register_processors():
    return {"dawdles": Component(Options, Dawdling)}
"""


def test_what_was_written_as_the_time_of_a_line_was_up_has_a_time_of_its_own(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_module(tmp_path / "site", "dawdles", DAWDLES)
    seen_by_agents(tmp_path / "site", monkeypatch)
    path = scene.logs / "app.log"
    path.write_text("whole\nfirst part, ")
    dawdles = {"type": "dawdles", "path": str(path), "busy_for": PATIENCE_S + 0.2}
    scene.source.update({"flush_partial_after": f"{PATIENCE_S}s", "processors": [dawdles]})
    scene.start()
    scene.expect("whole", "dawdle")
    assert path.read_text() == "whole\nfirst part, second part, "
    with path.open("a") as log:
        log.write("last part\n")
    scene.expect("whole", "dawdle", "first part, second part, last part")


def rotate_chain(path: Path, keep: int) -> None:
    for number in range(keep, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))


@pytest.mark.parametrize("include", ["app.log", "app.log*"])
def test_rotations_faster_than_anybody_reads(scene: Scene, meanwhile: Meanwhile, include: str) -> None:
    scene.source["include"] = [f"{scene.logs}/{include}"]
    path = scene.logs / "app.log"
    lines = begin(scene)
    wanted = list(lines)

    def rotate(turns: int) -> None:
        for turn in range(turns):
            rotate_chain(path, keep=8)
            fresh = numbered(f"turn {turn}", range(3))
            append(path, *fresh)
            wanted.extend(fresh)

    if include == "app.log*":
        meanwhile(lambda: rotate(3))
    else:
        # Under names nobody is told to read, generations that were never seen can't be found after a start.
        rotate(3)
        scene.expect(*wanted)
        meanwhile(lambda: rotate(1))
    scene.expect(*wanted)
    assert scene.losses() == []


def test_deleted_faster_than_anybody_acks(scene: Scene) -> None:
    """Held open, spooled when read: the backend's being down is no reason to lose what is deleted."""
    scene.backend.behave("refuse")
    path = scene.logs / "app.log"
    lines = numbered("a", range(200))
    append(path, *lines)
    scene.config["outputs"]["main"]["spool"] = {"max_bytes": "64MiB", "reserve_bytes": "1MiB"}
    scene.start()
    scene.wait(scene.files, "the file to be met")
    path.unlink()
    scene.wait(lambda: not scene.files(), "the file to be let go")
    scene.kill()
    scene.backend.behave()
    scene.start()
    scene.expect(*lines)
    assert scene.losses() == []


# Rotates the log as logrotate's copytruncate does, right after its first lines were read and before they are anything.
ROTATES = """
import os, shutil
import msgspec
from hostagent.hookspecs import Component, hookimpl

class Options(msgspec.Struct, frozen=True):
    path: str

class Rotation:
    def __init__(self, options, wiring):
        self.path = options.path
        self.done = False

    def process(self, batch):
        if not self.done:
            self.done = True
            shutil.copyfile(self.path, self.path + ".1")
            os.truncate(self.path, 0)
            with open(self.path, "a") as log:
                log.write("first of the new\\nsecond of the new\\n")
        return [batch]

@hookimpl
def hostagent_register_processors():
    return {"rotates": Component(Options, Rotation)}
"""


def test_copied_and_truncated_while_the_first_lines_are_processed(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_module(tmp_path / "site", "rotates", ROTATES)
    seen_by_agents(tmp_path / "site", monkeypatch)
    path = scene.logs / "app.log"
    path.touch()
    scene.source["include"] = [f"{scene.logs}/app.log*"]
    scene.source["processors"] = [{"type": "rotates", "path": str(path)}]
    scene.start()
    lines = numbered("old", range(10))
    append(path, *lines)
    scene.expect(*lines, "first of the new", "second of the new")
    scene.wait(lambda: not scene.notices(), "the copy to be known")
    append(path, "afterwards")
    scene.expect(*lines, "first of the new", "second of the new", "afterwards")


def test_a_copy_that_is_begun_before_its_original_was_read(scene: Scene) -> None:
    scene.source["include"] = [f"{scene.logs}/app.log*"]
    path, copy = scene.logs / "app.log", scene.logs / "app.log.1"
    scene.start()
    lines = numbered("old", range(10))
    with scene.agent.halted():
        append(path, *lines)
        copy.touch()
    scene.expect(*lines)
    shutil.copyfile(path, copy)
    rewrite(path, ["new"])
    scene.expect(*lines, "new")
    scene.wait(lambda: not scene.notices(), "the copy to be known")
    append(path, "afterwards")
    scene.expect(*lines, "new", "afterwards")


def test_copied_and_truncated_while_the_backend_takes_nothing(scene: Scene) -> None:
    """Nothing is read any more, but what was not read goes on in the copy, before that counts as a file of its own."""
    scene.config["limits"] |= {"max_inflight_bytes": "1MiB", "chunk_bytes": "64KiB"}
    scene.config["outputs"]["main"] |= {"spool": {"max_bytes": 0}, "block": {"max_wait": "20ms", "max_bytes": "64KiB"}}
    scene.source["include"] = [f"{scene.logs}/app.log*"]
    scene.backend.behave("refuse")
    path = scene.logs / "app.log"
    lines = numbered("a", range(30_000))
    append(path, *lines)
    scene.start()
    scene.wait(lambda: "it is full" in str(scene.notices()), "the agent to wait")
    shutil.copyfile(path, scene.logs / "app.log.1")
    os.truncate(path, 0)
    fresh = numbered("b", range(100))
    append(path, *fresh)
    scene.wait(lambda: "app.log.1" in str(scene.files()), "the copy to be known")
    scene.backend.behave()
    scene.expect(*lines, *fresh)
    assert [reason for *_, reason in scene.losses()] == ["copytruncate"]


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_copy_that_is_begun_while_nobody_looks_and_whose_original_is_truncated_after(scene: Scene, how: str) -> None:
    scene.source["include"] = [f"{scene.logs}/app.log*"]
    path, copy = scene.logs / "app.log", scene.logs / "app.log.1"
    lines = begin(scene)
    scene.wait(lambda: scene.output_status()["unacked_blocks"] == 0, "the positions to be committed")
    assert how == "killed" or scene.agent.stop() == 0
    if how == "killed":
        scene.kill()
    copy.write_bytes(path.read_bytes()[:1000])
    scene.start()
    scene.wait(scene.notices, "the copy to be watched")
    shutil.copyfile(path, copy)
    rewrite(path, ["new"])
    scene.expect(*lines, "new")
    scene.wait(lambda: not scene.notices(), "the copy to be known")
    append(path, "afterwards")
    scene.expect(*lines, "new", "afterwards")
    assert [reason for *_, reason in scene.losses()] == ["copytruncate"]


def test_what_may_be_a_copy_is_read_by_a_single_run(scene: Scene) -> None:
    path = scene.logs / "app.log"
    lines = begin(scene)
    assert scene.agent.stop() == 0
    (scene.logs / "app-2.log").write_bytes(path.read_bytes())
    run = scene.agent.run_once()
    assert run.returncode == 0, run.stderr
    scene.expect(*lines, *lines)


def test_a_file_that_only_begins_like_another_is_read_at_once(scene: Scene) -> None:
    """With a banner longer than what files are known by. While it is taken for a copy, it could be deleted unread."""
    banner = "#" * 1200
    append(scene.logs / "job.log", banner, "one")
    scene.start()
    scene.expect(banner, "one")
    append(scene.directory / "aside", banner, "two", "three")
    (scene.directory / "aside").rename(scene.logs / "job-2.log")
    scene.wait(lambda: scene.notices() or len(scene.messages()) == 5, "the file to be seen")
    assert scene.notices() == {}
    scene.expect(banner, "one", banner, "two", "three")


def test_a_copy_that_was_empty_when_it_was_seen_and_whose_original_was_renamed_since(scene: Scene) -> None:
    scene.source["include"] = [f"{scene.logs}/app.log*"]
    path, copy = scene.logs / "app.log", scene.logs / "app.log.12"
    older, lines = numbered("older", range(10)), numbered("old", range(10))
    append(scene.logs / "app.log.1", *older)
    append(path, *lines)
    scene.start()
    scene.expect(*older, *lines)
    copy.touch()
    scene.wait(scene.notices, "the empty file to be watched")
    with scene.agent.halted():
        shutil.copyfile(path, copy)
        rewrite(path, ["new"])
        path.rename(scene.logs / "app.log.13")
        append(path, "newest")
    scene.expect(*older, *lines, "new", "newest")
    scene.wait(lambda: not scene.notices(), "the copy to be known")
    append(path, "afterwards")
    scene.expect(*older, *lines, "new", "newest", "afterwards")
