"""What the faults act on: a writer, a backend, an agent and its disks; and what the oracle knows of them all.

The writer, the backend and the oracle are outside every fault. Directories a fault fills or makes read-only are small
filesystems of their own, mounted only when the caller is root.
"""

import contextlib
import http.client
import json
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL
from typing import NamedTuple

from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.oracle import Oracle
from tests.support.streams import ROTATIONS
from tests.support.waiting import NotInTimeError, wait_for
from tests.support.writer import Load, Writer
from tests.torture.disks import Disks
from tests.torture.judge import Judge, Tally
from tests.torture.tampering import Failing, tracer_of

DATABASE = "checkpoint.db"
RECOVERY_LIMIT_S = 90.0
QUIET_S = 1.0
# What is compressed while the agent is away and was never seen by it is excluded from reading by the configuration.
SURVIVABLE = tuple(how for how in ROTATIONS if how != "rename_gzip")


class Audit(NamedTuple):
    """The sums of `hostagent audit`: bytes in the spool, bytes nobody can find."""

    spooled: int
    unaccounted: int


class _Stuck:
    """Whether waiting longer is pointless: for a while not one more line has come, and either the ledger names all
    that is missing, or nothing of it is in the spool.
    """

    SHORT_S = 1.5
    LONG_S = 6.0

    def __init__(self, world: "World") -> None:
        self._world = world
        self._missing = -1
        self._since_s = time.monotonic()
        self._look_at_s = 0.0

    def on(self, written: dict[str, int]) -> bool:
        now_s = time.monotonic()
        missing = _lines(self._world.oracle.missing(written))
        if missing != self._missing:
            self._missing, self._since_s = missing, now_s
        quiet_s = now_s - self._since_s
        if quiet_s < self.SHORT_S or now_s < self._look_at_s:
            return False
        self._look_at_s = now_s + 1.5
        return self._world.judge.knows_of(written) or (quiet_s > self.LONG_S and self._world.audit().spooled == 0)


def _lines(missing: dict[str, list[tuple[int, int]]]) -> int:
    return sum(end - start for ranges in missing.values() for start, end in ranges)


class World:
    """Everything of one run."""

    def __init__(self, directory: Path, seed: int, bytes_per_s: float, streams: int, *, disks: bool) -> None:
        self.rng = random.Random(seed)
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.data_dir = directory / "state"
        self.spool_dir = self.data_dir / "spool"
        self.oracle = Oracle()
        self._tampering: Failing | None = None
        self._in_company = False
        self._exits = contextlib.ExitStack()
        if disks:
            places = [(directory / "state.img", self.data_dir), (directory / "spool.img", self.spool_dir)]
            self.mounted = self._exits.enter_context(contextlib.closing(Disks(places)))
        self.backend = self._exits.enter_context(Backend(directory / "backend", seed=seed))
        self.agent = self._exits.enter_context(Agent(directory / "agent", self._config()))
        self.calm = Load(
            str(self.logs), streams=streams, bytes_per_s=bytes_per_s, seed=seed, storm_per_s=1.0, rotations=SURVIVABLE
        )
        self.writer = self._exits.enter_context(Writer(self.calm))
        self.judge = Judge(self.data_dir / DATABASE, self.oracle, self.writer, lambda: self.agent.running)

    def close(self) -> None:
        self.stop_tampering()
        self.kill_traced()
        self._exits.close()

    @contextlib.contextmanager
    def company(self) -> Iterator[None]:
        """Several faults come and go within. One may keep the agent from getting ready, or running, while others go on;
        afterwards it has to run again.
        """
        self._in_company = True
        yield
        self._in_company = False
        if not self.agent.running:
            self.agent.start()
        self.agent.wait_ready()

    def launch(self) -> None:
        """Start the agent. Calls that are refused now are refused to this one, too."""
        self.agent.start()
        if self._tampering is not None:
            self._tampering.attach(self.agent.pid)

    def start(self) -> None:
        """Start the agent, and wait until it is at work; in company, until it can say that it isn't."""
        self.launch()
        if self._in_company:
            wait_for(self._is_up, "the agent to answer or to end", so_far=self.agent.tail)
        else:
            self.agent.wait_ready()

    def run_under(self, *wrapper: str) -> None:
        """From now on the agent is run by this command, or by none. If it is away, whoever took it away starts it."""
        self.agent.wrapper = list(wrapper)
        if self.agent.running or not self._in_company:
            self.kill()
            self.start()

    def kill(self) -> None:
        self._must_run()
        if self.agent.running:
            self.agent.kill()

    def stop(self) -> None:
        self._must_run()
        if self.agent.running:
            # One in company may be about to end by itself.
            assert self.agent.stop() in ({0, 1} if self._in_company else {0}), self.agent.tail()

    def tracebacks(self) -> int:
        """How many there are in the agent's log."""
        return self.agent.log.read_bytes().count(b"Traceback (most recent call last)")

    def pause(self, low_s: float, high_s: float) -> None:
        """Let time pass: faults of random length are what this program is about."""
        time.sleep(self.rng.uniform(low_s, high_s))

    def kill_traced(self) -> None:
        """Kill the agent if it lives, and whoever traces it; that one would outlive it otherwise."""
        if self.agent.running:
            tracer = tracer_of(self.agent.pid)
            self.agent.signal(SIGKILL)
            if tracer:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(tracer, SIGKILL)
            self.agent.kill()

    def tamper(self, failing: Failing) -> None:
        """From now on some of the agent's calls fail."""
        self._tampering = failing
        assert failing.attach(self.agent.pid), self.agent.tail()

    def stop_tampering(self) -> None:
        """From now on the agent's calls reach the kernel again."""
        if self._tampering is not None:
            self._tampering.stop()
            self._tampering = None

    def back_up(self) -> None:
        """What the agent does every minute: a copy of its database beside it."""
        backup = self.data_dir / f"{DATABASE}.backup"
        backup.unlink(missing_ok=True)
        with (
            contextlib.closing(sqlite3.connect(f"{(self.data_dir / DATABASE).as_uri()}?mode=ro", uri=True)) as live,
            contextlib.closing(sqlite3.connect(backup)) as copy,
        ):
            live.backup(copy)

    def database_files(self) -> list[Path]:
        """The database, its log and its backup, as far as they are there."""
        return sorted(path for path in self.data_dir.iterdir() if path.is_file() and ".db" in path.name)

    def storm(
        self, rotations_per_s: float = 1.0, rotations: tuple[str, ...] = SURVIVABLE, *, in_turn: bool = False
    ) -> None:
        load = {"storm_per_s": rotations_per_s, "rotations": rotations, "in_turn": in_turn}
        self.writer.order("change", load=load)

    def wait_for_traffic(self) -> None:
        """Until something has been stored since now."""
        stored = self.backend.stats()["stored"]

        def more() -> bool:
            self.agent.must_run()
            return self.backend.stats()["stored"] > stored

        wait_for(more, "traffic", so_far=self.agent.tail)

    def settle(self, tally: Tally, *, repeats: bool) -> None:
        """After a fault: wait until what was written up to now has arrived, or will not come any more."""
        healed_s = time.monotonic()
        written = self.writer.state()
        self.wait_for_all(written)
        if self._complete(written):
            tally.recovered_s.append(time.monotonic() - healed_s)
        if repeats:
            self._wait_for_the_last_repeat()
        self.judge.miss(tally, written)
        self.judge.charge(tally)
        self.judge.read_ledger()
        self.writer.order("remove_rotated", below=written)

    def wait_for_all(self, written: dict[str, int]) -> None:
        """Until all of it has arrived, or waiting longer is pointless."""
        stuck = _Stuck(self)
        with contextlib.suppress(NotInTimeError):
            wait_for(
                lambda: self._complete(written) or stuck.on(written),
                "recovery",
                timeout_s=RECOVERY_LIMIT_S,
                poll_s=0.05,
            )

    def _wait_for_the_last_repeat(self) -> None:
        """What is sent again from the files' beginnings may still be on its way when nothing is missing any more."""
        twice, since_s = -1, time.monotonic()
        deadline_s = since_s + RECOVERY_LIMIT_S
        while time.monotonic() < min(since_s + QUIET_S, deadline_s):
            self.oracle.take(self.backend.new_arrivals())
            if self.oracle.twice != twice:
                twice, since_s = self.oracle.twice, time.monotonic()
            time.sleep(0.05)

    def audit(self) -> Audit:
        """What `hostagent audit` says now, over all sources and outputs."""
        found = json.loads(self.agent.call("audit", "--json").stdout)
        accounts = [one["account"] for one in found["sources"]]
        return Audit(
            spooled=sum(account["spooled"] for account in accounts),
            unaccounted=int(found["unaccounted"]),
        )

    def finish(self) -> Tally:
        """Stop writing and the agent, and judge; what was missed or came wrong only now is in the answer."""
        tally = Tally("the end")
        written = self.writer.order("pause")
        self.wait_for_all(written)
        self.agent.stop()
        self._complete(written)
        self.judge.miss(tally, written)
        self.judge.charge(tally)
        self.judge.read_ledger()
        self.judge.judge()
        return tally

    def _must_run(self) -> None:
        """Alone no fault may end the agent. In company one may: it can't start on a disk that answers with errors."""
        if not self._in_company:
            self.agent.must_run()

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.agent.get("/readyz")
            return True
        return not self.agent.running

    def _complete(self, written: dict[str, int]) -> bool:
        self.oracle.take(self.backend.new_arrivals())
        return self.oracle.complete(written)

    def _config(self) -> dict[str, object]:
        return {
            "data_dir": str(self.data_dir),
            "sources": {"app": {"type": "file", "include": [f"{self.logs}/*.log*"], "exclude": ["*.gz"]}},
            "outputs": {
                "main": {
                    "type": "http",
                    "url": self.backend.url(),
                    "timeout": "5s",
                    "block": {"max_wait": "100ms"},
                    "spool": {"max_bytes": "64MiB", "reserve_bytes": "1MiB"},
                }
            },
        }
