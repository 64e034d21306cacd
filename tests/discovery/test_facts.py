"""Container ends as lines of a small file: each end once, over restarts of the agent, within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from hostagent.clock import Clock
from hostagent.discovery.containers import facts as module
from hostagent.discovery.containers.facts import Facts
from hostagent.discovery.runtime.container import Container, ContainerState

S = 1_000_000_000
ENDED = Container(
    id="a" * 64,
    name="web",
    runtime="docker",
    image="web:1",
    state=ContainerState.EXITED,
    restarts=2,
    exit_code=137,
    oom_killed=True,
    reason="no memory\n",
    started_ns=1000 * S,
    finished_ns=1001 * S + 5,
)
RUNNING = replace(ENDED, state=ContainerState.RUNNING, exit_code=None, oom_killed=False, finished_ns=0)


def open_facts(tmp_path: Path) -> Facts:
    return Facts(tmp_path, "s", Clock())


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    directory = tmp_path / "container-facts"
    texts = [path.read_text() for path in (directory / "s.log.1", directory / "s.log") if path.exists()]
    return [json.loads(line) for line in "".join(texts).splitlines()]


def test_an_end_with_everything_that_is_known(tmp_path: Path) -> None:
    open_facts(tmp_path).note(ENDED, {"container_id": ENDED.id, "container_name": "web"})
    assert lines(tmp_path) == [
        {
            "container_id": ENDED.id,
            "container_name": "web",
            "time": "1970-01-01T00:16:41.000000005Z",
            "message": "container web exited with code 137, out of memory",
            "event": "exited",
            "exit_code": 137,
            "restart_count": 2,
            "oom_killed": True,
            "reason": "no memory\n",
            "started_at": "1970-01-01T00:16:40.000000000Z",
            "finished_at": "1970-01-01T00:16:41.000000005Z",
        }
    ]


def test_each_end_is_told_once_also_after_a_restart_of_the_agent(tmp_path: Path) -> None:
    tags = {"container_id": ENDED.id}
    for _ in range(3):
        facts = open_facts(tmp_path)
        facts.note(ENDED, tags)
        facts.note(ENDED, tags)
    open_facts(tmp_path).note(replace(ENDED, finished_ns=1002 * S), tags)
    assert [line["finished_at"][14:19] for line in lines(tmp_path)] == ["16:41", "16:42"]


def test_a_container_that_has_not_ended_is_not_told_of(tmp_path: Path) -> None:
    facts = open_facts(tmp_path)
    facts.note(RUNNING, {})
    facts.note(replace(RUNNING, state=ContainerState.CREATED), {})
    facts.note(replace(RUNNING, state=ContainerState.CREATED), {}, removed=True)
    assert lines(tmp_path) == []


def test_an_end_that_nobody_could_look_at(tmp_path: Path) -> None:
    facts = open_facts(tmp_path)
    facts.note(replace(RUNNING, finished_ns=1003 * S), {})
    facts.note(replace(RUNNING, id="b"), {}, removed=True)
    assert [(line["event"], line.get("exit_code")) for line in lines(tmp_path)] == [
        ("restarted", None),
        ("removed", None),
    ]


def test_the_files_are_bounded_and_nothing_old_is_told_again(tmp_path: Path) -> None:
    facts = open_facts(tmp_path)
    many = [replace(ENDED, id=f"{number:064}", finished_ns=(1000 + number) * S) for number in range(6000)]
    for one in many:
        facts.note(one, {"container_id": one.id, "padding": "x" * 300})
    sizes = [path.stat().st_size for path in (tmp_path / "container-facts").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < module.MAX_FILE_BYTES + 1000
    kept = lines(tmp_path)
    again = open_facts(tmp_path)
    for one in many:
        again.note(one, {"container_id": one.id})
    assert lines(tmp_path) == kept


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    facts = open_facts(tmp_path)
    facts.note(ENDED, {"container_id": ENDED.id})
    path = tmp_path / "container-facts" / "s.log"
    with path.open("ab") as file:
        file.write(b'{"container_id": "torn \xff')
    open_facts(tmp_path).note(replace(ENDED, finished_ns=1002 * S), {"container_id": ENDED.id})
    texts = path.read_bytes().splitlines()
    assert [json.loads(texts[number])["finished_at"][17:19] for number in (0, 2)] == ["41", "42"]


def test_a_disk_that_takes_nothing_is_said_and_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "container-facts").write_text("in the way")
    facts = open_facts(tmp_path)
    facts.note(ENDED, {"container_id": ENDED.id})
    assert "can't be written" in facts.notices()[0].message
    (tmp_path / "container-facts").unlink()
    facts.note(ENDED, {"container_id": ENDED.id})
    assert facts.notices() == []
    assert len(lines(tmp_path)) == 1
