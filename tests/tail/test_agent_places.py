"""The whole agent, where logs lie in awkward places: behind links, in polled directories, under hostile names."""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import Agent
from tests.support.waiting import wait_for


class Followed(Agent):
    """An agent with one source, its records in a file."""

    def __init__(self, directory: Path, *include: str) -> None:
        self.out = directory / "out.ndjson"
        super().__init__(
            directory,
            {
                "sources": {"logs": {"type": "file", "include": list(include)}},
                "outputs": {"main": {"type": "file", "path": str(self.out)}},
                # Far beyond the test's patience: what arrives has been noticed, not stumbled upon.
                "limits": {"rescan_interval": "1h"},
            },
        )

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_bytes().splitlines()] if self.out.exists() else []

    def messages(self) -> Counter[str]:
        return Counter(record["message"] for record in self.records())

    def expect(self, *messages: str) -> None:
        wanted = Counter(messages)
        wait_for(lambda: self.messages() >= wanted, f"{messages}", so_far=lambda: f"There: {self.messages()}")
        assert self.messages() == wanted


def append(path: Path, *lines: str) -> None:
    with path.open("a") as out:
        out.write("".join(f"{line}\n" for line in lines))


def point(link: Path, target: str) -> None:
    """Point a link elsewhere as deployments do: in one step."""
    spare = link.with_name(link.name + ".new")
    spare.symlink_to(target)
    spare.rename(link)


def test_a_link_to_a_directory_that_is_pointed_elsewhere_is_followed(tmp_path: Path, logs: Path) -> None:
    for release in ("1", "2"):
        (logs / release / "log").mkdir(parents=True)
    (logs / "current").symlink_to("1")
    append(logs / "1/log/app.log", "one")
    with Followed(tmp_path / "agent", f"{logs}/current/log/*.log") as agent:
        agent.start()
        agent.wait_ready()
        agent.expect("one")
        append(logs / "2/log/app.log", "two")
        point(logs / "current", "2")
        agent.expect("one", "two")
        append(logs / "2/log/app.log", "three")
        agent.expect("one", "two", "three")


def test_a_link_to_a_file_that_is_pointed_elsewhere_is_followed(tmp_path: Path, logs: Path) -> None:
    (tmp_path / "real").mkdir()
    append(tmp_path / "real/1", "one")
    (logs / "app.log").symlink_to(tmp_path / "real/1")
    with Followed(tmp_path / "agent", f"{logs}/*.log") as agent:
        agent.start()
        agent.wait_ready()
        agent.expect("one")
        append(tmp_path / "real/1", "two")
        agent.expect("one", "two")
        append(tmp_path / "real/2", "three")
        point(logs / "app.log", str(tmp_path / "real/2"))
        agent.expect("one", "two", "three")
        append(tmp_path / "real/2", "four")
        agent.expect("one", "two", "three", "four")


def test_a_file_behind_a_link_that_is_rotated_and_deleted_is_followed(tmp_path: Path, logs: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    path = real / "0.log"
    append(path, "one")
    (logs / "app.log").symlink_to(path)
    with Followed(tmp_path / "agent", f"{logs}/*.log") as agent:
        agent.start()
        agent.wait_ready()
        agent.expect("one")
        path.rename(real / "0.log.1")
        append(path, "two")
        append(real / "0.log.1", "late")
        agent.expect("one", "two", "late")
        # Before the first of them can be opened.
        append(path, "three")
        path.rename(real / "0.log.2")
        append(path, "four")
        path.rename(real / "0.log.3")
        append(path, "five")
        agent.expect("one", "two", "late", "three", "four", "five")
        path.unlink()
        deleted = f"{path} (deleted)"
        wait_for(lambda: deleted not in dict(agent.open_files()), "the deleted file to be let go")
        append(path, "six")
        agent.expect("one", "two", "late", "three", "four", "five", "six")
        assert {record["path"] for record in agent.records()} == {str(logs / "app.log")}


def test_a_link_that_leads_nowhere_is_followed_once_it_leads_somewhere(tmp_path: Path, logs: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (logs / "early.log").symlink_to(real / "early")
    with Followed(tmp_path / "agent", f"{logs}/*.log") as agent:
        agent.start()
        agent.wait_ready()
        (logs / "late.log").symlink_to(real / "late")
        append(logs / "app.log", "seen")
        agent.expect("seen")
        append(real / "early", "one")
        append(real / "late", "two")
        agent.expect("seen", "one", "two")


def test_a_directory_that_appears_vanishes_and_comes_back_is_followed(tmp_path: Path, logs: Path) -> None:
    with Followed(tmp_path / "agent", f"{logs}/app/deep/*.log") as agent:
        agent.start()
        agent.wait_ready()
        for number in range(3):
            (logs / "app/deep").mkdir(parents=True)
            append(logs / "app/deep/app.log", f"{number}")
            agent.expect(*map(str, range(number + 1)))
            (logs / "app/deep/app.log").unlink()
            (logs / "app/deep").rmdir()
            (logs / "app").rmdir()


def test_files_under_any_name_arrive(tmp_path: Path, logs: Path) -> None:
    names = [b"two\nlines.log", b"\xff\xfe.log", b"n" * 251 + b".log", b" .log", b"*.log", b'"quoted\\".log']
    with Followed(tmp_path / "agent", f"{logs}/*.log") as agent:
        agent.start()
        agent.wait_ready()
        for number, name in enumerate(names):
            append(Path(os.fsdecode(os.fsencode(logs) + b"/" + name)), f"{number}")
        agent.expect(*map(str, range(len(names))))


def test_what_is_no_log_is_passed_over_and_told(tmp_path: Path, logs: Path) -> None:
    os.mkfifo(logs / "pipe.log")
    (logs / "loop.log").symlink_to("loop.log")
    (logs / "dangling.log").symlink_to("nowhere")
    (logs / "kernel.log").symlink_to("/proc/version")
    (logs / "dir.log").mkdir()
    append(logs / "app.log", "one")
    with Followed(tmp_path / "agent", f"{logs}/*.log") as agent:
        agent.start()
        agent.wait_ready()
        agent.expect("one")
        status = agent.get("/status")[1]
        for name in ("pipe.log", "loop.log", "kernel.log"):
            assert name in status
        append(logs / "nowhere", "two")  # the link leads somewhere now, though nothing happened where it lies
        append(logs / "app.log", "three")
        wait_for(lambda: agent.messages()["three"], "the line after")


@pytest.mark.requires(root=True, tools=("bindfs",))
@pytest.mark.kernel_may_lack("FUSE")
def test_rotation_on_a_file_system_without_events_is_followed(tmp_path: Path, fuse_mount: tuple[Path, Path]) -> None:
    behind, mounted = fuse_mount
    append(behind / "app.log", "one")
    with Followed(tmp_path / "agent", f"{mounted}/*.log") as agent:
        agent.start()
        agent.wait_ready()
        agent.expect("one")
        append(behind / "app.log", "two")
        agent.expect("one", "two")
        append(behind / "app.log", "three")
        (behind / "app.log").rename(behind / "app.log.1")
        append(behind / "app.log", "four")
        agent.expect("one", "two", "three", "four")


@pytest.mark.requires(root=True, tools=("unshare",))
def test_with_one_watch_for_three_directories_every_line_arrives(
    tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent as root of a user namespace with a watch limit of its own."""
    wrapper = tmp_path / "limited"
    start = f'exec "{sys.executable}" -m hostagent "$@"'
    wrapper.write_text(f"#!/bin/sh\necho 1 > /proc/sys/user/max_inotify_watches\n{start}\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("HOSTAGENT_COMMAND", f"unshare --user --map-root-user {wrapper}")
    for name in ("a", "b", "c"):
        (logs / name).mkdir()
    with Followed(tmp_path / "agent", *(f"{logs}/{name}/app.log" for name in ("a", "b", "c"))) as agent:
        agent.start()
        agent.wait_ready()
        assert "max_user_watches" in agent.get("/status")[1]
        for number in range(3):
            for name in ("a", "b", "c"):
                append(logs / name / "app.log", f"{name}{number}")
            agent.expect(*(f"{name}{n}" for n in range(number + 1) for name in ("a", "b", "c")))
