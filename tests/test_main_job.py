"""The main job from outside: files on a host, an HTTP backend, a real agent between them, and all that goes wrong.

Each test writes real files, runs the agent as a process and asks the backend what arrived.
"""

import base64
import os
import random
import stat
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import AHEAD_OF_OTHERS, Agent
from tests.support.backend import Backend
from tests.support.lines import make_line
from tests.support.oracle import Oracle
from tests.support.waiting import wait_for
from tests.support.writer import Load, Writer

KILLS = int(os.environ.get("HOSTAGENT_KILLS", "8"))
MAX_LINE = 64 << 10


def config(logs: Path, backend: Backend, **source: Any) -> dict[str, Any]:  # noqa: ANN401 - options of a source
    output = {"type": "http", "url": backend.url(), "block": {"max_wait": "50ms"}}
    return {
        "sources": {"app": {"type": "file", "include": [f"{logs}/*.log"], **source}},
        "outputs": {"main": output},
    }


class Watch:
    """Waits until everything written has arrived, then judges it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.oracle = Oracle()

    def complete(self, written: dict[str, int]) -> bool:
        self.oracle.take(self.backend.new_arrivals())
        return self.oracle.complete(written)

    def expect(self, written: dict[str, int], agent: Agent, *, timeout_s: float = 60.0) -> None:
        def so_far() -> str:
            agent.must_run()
            return f"{self.oracle.findings(written)}\n{agent.tail()}"

        wait_for(lambda: self.complete(written), "every line to arrive", timeout_s=timeout_s, so_far=so_far)
        assert agent.stop() == 0, agent.tail()
        assert self.complete(written)
        findings = self.oracle.findings(written)
        assert findings.clean, str(findings)


def write_lines(path: Path, count: int, text_length: int = 120) -> dict[str, int]:
    name = path.name.removesuffix(".log")
    path.write_bytes(b"".join(make_line(name, 0, seq, 0, text_length) for seq in range(count)))
    return {name: count}


def hostile_contents() -> dict[bytes, bytes]:
    rng = random.Random(7)
    exact = b"e" * MAX_LINE
    return {
        b"binary.log": rng.randbytes(300_000),
        b"control.log": bytes(range(256)) * 50 + b"\n",
        b"nul.log": b"\0" * 10_000 + b"\n\0\0\n" + b"after\n",
        b"long.log": b"short\n" + b"x" * (3 << 20) + b"\nshort again\n",
        b"long-binary.log": rng.randbytes(500_000).replace(b"\n", b"\r") + b"\nend\n",
        b"long-umlauts.log": "ü".encode() * 200_000 + b"\n",
        b"limit.log": b"\n".join([exact[:-1], exact, exact + b"f", exact * 2, exact * 2 + b"f", b""]),
        b"crlf.log": b"one\r\ntwo\r\n\r\nthree\r",
        b"blank.log": b"\n\n \n\n\t\n",
        b"unfinished.log": b"first\nlast without an end",
        b"json-like.log": b'{"message": "not ours", "path": "/etc/shadow"}\n"},{"a":"\n\\u0000\\\n',
        b"separators.log": "line\u2028separator\u2029here\x85\x0b\x0c\n".encode(),
        b"half-characters.log": "日本語テキスト\n".encode()[:-2] + b"\n\xed\xa0\x80\n\xf4\x90\x80\x80\n\xc0\xaf\n",
        b"new\nline in its name.log": b"named badly\n",
        b"caf\xe9.log": b"named in latin-1\n",
        b"$(touch pwned);*?[a].log": b"named by an attacker\n",
        b"-rf.log": b"named like an option\n",
        b"n" * 240 + b".log": b"named at length\n",
        b"empty.log": b"",
    }


def returned(backend: Backend) -> list[bytes]:
    """What each path's records add up to."""
    contents: defaultdict[str, bytes] = defaultdict(bytes)
    for arrival in backend.new_arrivals():
        for record in arrival.records():
            raw = record["message"].encode() if "message" in record else base64.b64decode(record["message_base64"])
            contents[record["path"]] += raw + (b"" if record.get("partial") else b"\n")
    return list(contents.values())


def test_run_once_gives_back_every_byte_of_hostile_files(tmp_path: Path, logs: Path, backend: Backend) -> None:
    contents = hostile_contents()
    for name, content in contents.items():
        with open(os.fsencode(logs) + b"/" + name, "wb") as target:
            target.write(content)
    agent = Agent(tmp_path / "agent", config(logs, backend, invalid_utf8="base64", max_line_bytes="64KiB"))
    finished = agent.run_once()
    assert finished.returncode == 0, finished.stderr
    # The end of a file ends its last line, whether it has a newline or not.
    expected = [content if content.endswith(b"\n") else content + b"\n" for content in contents.values() if content]
    arrived = returned(backend)
    names = {content: name for name, content in zip(contents, expected, strict=False)}
    missing = [names.get(content, content[:80]) for content in expected if content not in arrived]
    strange = [content[:80] for content in arrived if content not in expected]
    assert (missing, strange) == ([], [])


def test_what_is_no_regular_file_is_passed_over(tmp_path: Path, logs: Path, backend: Backend) -> None:
    written = write_lines(logs / "good.log", 5)
    os.mkfifo(logs / "pipe.log")
    (logs / "folder.log").mkdir()
    (logs / "loop.log").symlink_to(logs / "loop.log")
    (logs / "dangling.log").symlink_to(logs / "nowhere")
    (logs / "zero.log").symlink_to("/dev/zero")
    os.mknod(logs / "socket.log", stat.S_IFSOCK | 0o600)
    finished = Agent(tmp_path / "agent", config(logs, backend)).run_once()
    assert finished.returncode == 0, finished.stderr
    watch = Watch(backend)
    assert watch.complete(written), finished.stderr
    assert watch.oracle.findings(written).clean


def test_a_second_run_repeats_nothing_and_a_longer_file_goes_on(tmp_path: Path, logs: Path, backend: Backend) -> None:
    write_lines(logs / "app.log", 10)
    agent = Agent(tmp_path / "agent", config(logs, backend))
    assert agent.run_once().returncode == 0
    assert agent.run_once().returncode == 0
    with (logs / "app.log").open("ab") as log:
        log.write(make_line("app", 0, 10))
    assert agent.run_once().returncode == 0
    watch = Watch(backend)
    assert watch.complete({"app": 11})
    assert watch.oracle.findings({"app": 11}).clean


def test_one_file_under_many_names_is_read_once(tmp_path: Path, logs: Path, backend: Backend) -> None:
    written = write_lines(logs / "app.log", 10)
    os.link(logs / "app.log", logs / "hard.log")
    (logs / "soft.log").symlink_to(logs / "app.log")
    agent = Agent(tmp_path / "agent", config(logs, backend))
    assert agent.run_once().returncode == 0
    watch = Watch(backend)
    assert watch.complete(written)
    assert watch.oracle.findings(written).clean


def test_kill_9_under_load_loses_nothing_and_repeats_nothing(tmp_path: Path, logs: Path, backend: Backend) -> None:
    rng = random.Random(KILLS)
    watch = Watch(backend)
    load = Load(str(logs), streams=4, bytes_per_s=2e6)
    with Agent(tmp_path / "agent", config(logs, backend)) as agent, Writer(load) as writer:
        for _ in range(KILLS):
            agent.start()
            enough = backend.stats()["stored"] + rng.randrange(1, 12)
            wait_for(lambda enough=enough: backend.stats()["stored"] >= enough, "deliveries", so_far=agent.tail)  # type: ignore[misc]
            agent.kill()
        agent.start()
        watch.expect(writer.stop(), agent)


def test_rotation_under_load_loses_nothing(tmp_path: Path, logs: Path, backend: Backend) -> None:
    watch = Watch(backend)
    load = Load(str(logs), streams=4, bytes_per_s=1e6, storm_per_s=30, seed=3)
    source = {"include": [f"{logs}/*.log*"], "exclude": ["*.gz"]}
    with Agent(tmp_path / "agent", config(logs, backend, **source)) as agent:
        agent.wrapper = [*AHEAD_OF_OTHERS]
        agent.start()
        agent.wait_ready()
        # Only now: what is compressed before anybody could see it is not the agent's to deliver.
        with Writer(load) as writer:
            wait_for(lambda: min(writer.state().values()) > 4000, "the writer to write")
            watch.expect(writer.stop(), agent)


def test_an_output_that_is_down_does_not_hold_up_the_other(tmp_path: Path, logs: Path, backend: Backend) -> None:
    with Backend(tmp_path / "second") as second:
        second.behave("refuse")
        both = config(logs, backend)
        both["outputs"]["second"] = {"type": "http", "url": second.url(), "block": {"max_wait": "50ms"}}
        written = write_lines(logs / "app.log", 20_000)
        healthy, late = Watch(backend), Watch(second)
        with Agent(tmp_path / "agent", both) as agent:
            agent.start()
            wait_for(lambda: healthy.complete(written), "the healthy output", so_far=agent.tail)
            assert not late.complete(written)
            second.behave()
            late.expect(written, agent)
        assert healthy.complete(written)
        findings = healthy.oracle.findings(written)
        assert findings.clean, str(findings)


@pytest.mark.parametrize(
    "behaviour",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503, "retry_after_s": 0.2},
        {"kind": "status", "status": 429},
        {"kind": "too_large", "max_bytes": 2000},
        {"kind": "cut"},
        {"kind": "stored_then_reset"},
        {"kind": "half_answer"},
        {"kind": "endless_answer"},
    ],
    ids=lambda behaviour: f"{behaviour['kind']}{behaviour.get('status', '')}",
)
def test_a_backend_that_misbehaves_gets_every_line_once(
    tmp_path: Path, logs: Path, backend: Backend, behaviour: dict[str, Any]
) -> None:
    backend.behave(**{"times": None if behaviour["kind"] == "too_large" else 2, **behaviour})
    written = write_lines(logs / "app.log", 1000)
    with Agent(tmp_path / "agent", config(logs, backend)) as agent:
        agent.start()
        Watch(backend).expect(written, agent)
    assert backend.stats()["refused"] >= 1


def peak_rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_a_backend_slower_than_the_logs_costs_no_memory(tmp_path: Path, logs: Path, backend: Backend) -> None:
    backend.behave("slow", delay_s=0.02)
    written = write_lines(logs / "app.log", 120_000, text_length=400)
    with Agent(tmp_path / "agent", config(logs, backend)) as agent:
        agent.start()
        watch = Watch(backend)
        wait_for(lambda: watch.complete(written), "every line to arrive", timeout_s=90, so_far=agent.tail)
        peak = peak_rss_bytes(agent.pid)
        watch.expect(written, agent)
    assert peak < 72 << 20, "what is not sent yet stays in its file"


def test_a_reader_that_waited_for_room_goes_on_when_there_is_some(tmp_path: Path, logs: Path, backend: Backend) -> None:
    """A thousand small blocks: were the room noticed late but once in four, they would take minutes."""
    backend.behave("slow", delay_s=0.005)
    slow = config(logs, backend)
    slow["limits"] = {"chunk_bytes": "16KiB"}
    slow["outputs"]["main"]["block"] = {"max_bytes": "16KiB"}
    written = write_lines(logs / "app.log", 32_000, text_length=400)
    with Agent(tmp_path / "agent", slow) as agent:
        agent.start()
        Watch(backend).expect(written, agent)


def test_a_frozen_agent_goes_on_where_it_was(tmp_path: Path, logs: Path, backend: Backend) -> None:
    watch = Watch(backend)
    load = Load(str(logs), streams=2, bytes_per_s=1e6)
    with Agent(tmp_path / "agent", config(logs, backend)) as agent, Writer(load) as writer:
        agent.start()
        wait_for(lambda: backend.stats()["stored"] > 2, "deliveries", so_far=agent.tail)
        with agent.halted():
            frozen_at = min(writer.state().values())
            wait_for(lambda: min(writer.state().values()) > frozen_at + 3000, "the writer to write on")
        watch.expect(writer.stop(), agent)


@pytest.mark.parametrize("state", ["healthy", "refuse"])
def test_a_file_deleted_right_before_the_stop_is_delivered(
    tmp_path: Path, logs: Path, backend: Backend, state: str
) -> None:
    watch = Watch(backend)
    with Agent(tmp_path / "agent", config(logs, backend)) as agent:
        written = write_lines(logs / "app.log", 10)
        agent.start()
        wait_for(lambda: watch.complete(written), "the first lines", so_far=agent.tail)
        backend.behave(state)
        with (logs / "app.log").open("ab") as log:
            log.write(b"".join(make_line("app", 0, seq) for seq in range(10, 20_000)))
        (logs / "app.log").unlink()
        assert agent.stop() == 0, agent.tail()
        backend.behave()
        agent.start()
        agent.wait_ready()
        watch.expect({"app": 20_000}, agent)
