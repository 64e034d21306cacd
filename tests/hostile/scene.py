"""A stage for the user from hell: one directory of logs, one backend, one real agent, and what arrived in order."""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import orjson

from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.oracle import Oracle
from tests.support.waiting import wait_for

PATIENCE_S = 40.0


class Scene:
    """Logs in `logs`, everything in them followed by one source, records at one backend. Leaving it stops all."""

    def __init__(self, directory: Path, *, honour_keys: bool = True) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True)
        self._exits = ExitStack()
        self.backend = self._exits.enter_context(Backend(directory / "backend", honour_keys=honour_keys))
        self.config: dict[str, Any] = {
            "sources": {"app": {"type": "file", "include": [f"{self.logs}/*.log"], "close_grace": "200ms"}},
            "outputs": {"main": self.output()},
            "limits": {"rescan_interval": "500ms", "stop_timeout": "2s"},
        }
        self.agent = self._exits.enter_context(Agent(directory / "agent", self.config))
        self.records: list[dict[str, Any]] = []

    def output(self, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - an output's options
        return {"type": "http", "url": self.backend.url(), "block": {"max_wait": "20ms"}, **options}

    @property
    def source(self) -> dict[str, Any]:
        source: dict[str, Any] = self.config["sources"]["app"]
        return source

    def start(self) -> None:
        # What may be changed until now goes into the agent's own file with its next command.
        self.agent.config.update(self.config)
        self.agent.start()
        self.agent.wait_ready()

    def restart(self) -> None:
        assert self.agent.stop() == 0, self.agent.tail()
        self.start()

    def poke(self) -> None:
        """Have the agent look now at what it looks at every few seconds: its configuration and its own state."""
        self.agent.try_now()

    def kill(self) -> None:
        self.agent.must_run()
        self.agent.kill()

    # -- what arrived --------------------------------------------------------------------------------------------

    def take(self) -> list[dict[str, Any]]:
        for arrival in self.backend.new_arrivals():
            self.records += arrival.records()
        return self.records

    def messages(self) -> list[str]:
        return [record["message"] for record in self.take()]

    def by_path(self) -> dict[str, list[str]]:
        """File name → its messages in order."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for record in self.take():
            found[os.path.basename(record["path"])].append(record["message"])
        return dict(found)

    def expect(self, *messages: str, timeout_s: float = PATIENCE_S) -> None:
        """Exactly these have arrived, in whatever order."""
        wanted = Counter(messages)
        so_far = self._difference(wanted)
        wait_for(lambda: Counter(self.messages()) >= wanted, "the lines", timeout_s=timeout_s, so_far=so_far)
        assert Counter(self.messages()) == wanted, so_far()

    def expect_all(self, oracle: Oracle, written: dict[str, int], timeout_s: float = PATIENCE_S) -> None:
        """Every line of the numbered streams has arrived, once and in order."""

        def complete() -> bool:
            self.agent.must_run()
            oracle.take(self.backend.new_arrivals())
            return oracle.complete(written)

        def so_far() -> str:
            return f"{oracle.findings(written)}\n{self.notices()}\n{self.agent.tail()}"

        wait_for(complete, "every line", timeout_s=timeout_s, so_far=so_far)
        assert oracle.findings(written).clean, so_far()

    def _difference(self, wanted: Counter[str]) -> Any:  # noqa: ANN401 - a closure
        def words() -> str:
            there = Counter(self.messages())
            missing, extra = list((wanted - there).elements())[:10], list((there - wanted).elements())[:10]
            state = "" if self.agent.running else " The agent has ended."
            return f"Missing: {missing}; too many: {extra}.{state}\n{self.notices()}\n{self.agent.tail()}"

        return words

    # -- what the agent says -------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        report: dict[str, Any] = self.agent.status()
        return report

    def notices(self) -> dict[str, list[str]]:
        """Subject → messages."""
        if not self.agent.running:
            return {}
        found: defaultdict[str, list[str]] = defaultdict(list)
        for notice in self.status()["notices"]:
            found[notice["subject"]].append(notice["message"])
        return dict(found)

    def files(self) -> list[dict[str, Any]]:
        report: dict[str, Any] = json.loads(self.agent.get("/files")[1])
        files: list[dict[str, Any]] = report["files"]
        return files

    def metric(self, name: str) -> float:
        page = self.agent.get("/metrics")[1]
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
        return sum(map(float, found))

    def output_status(self, name: str = "main") -> dict[str, Any]:
        report: dict[str, Any] = self.agent.output(name)
        return report

    def losses(self) -> list[tuple[str, int, int | None, str]]:
        """The ledger: (name, start, end, reason)."""
        import sqlite3

        connection = sqlite3.connect(f"file:{self.agent.config['data_dir']}/checkpoint.db?mode=ro", uri=True)
        try:
            rows = connection.execute("SELECT path, start, end, reason FROM losses ORDER BY seq").fetchall()
        finally:
            connection.close()
        return [
            (os.path.basename(os.fsdecode(path)), start, end if end >= 0 else None, reason)
            for path, start, end, reason in rows
        ]

    def wait(self, condition: Any, what: str, timeout_s: float = PATIENCE_S) -> Any:  # noqa: ANN401 - a lambda
        def asked() -> Any:  # noqa: ANN401 - whatever the condition answers
            self.agent.must_run()
            return condition()

        return wait_for(asked, what, timeout_s=timeout_s, so_far=self.agent.tail)

    def close(self) -> None:
        self._exits.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(self.agent.tail())
        self.close()


def append(path: Path, *lines: str) -> None:
    with path.open("ab") as log:
        log.write("".join(f"{line}\n" for line in lines).encode())


def numbered(name: str, *numbers: range) -> list[str]:
    """Lines long enough for a position in them to be told from another file's."""
    return [f"{name} line {number:06} {'.' * 60}" for span in numbers for number in span]


def as_nobody(agent: Agent) -> None:
    """Run the agent as an unprivileged user from now on."""
    agent.directory.mkdir(exist_ok=True)
    os.chown(agent.directory, 65534, 65534)
    agent.wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]


def rss_peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def environment(**values: str) -> Mapping[str, str]:
    return {**os.environ, **values}


def decode(line: bytes) -> dict[str, Any]:
    record: dict[str, Any] = orjson.loads(line)
    return record
