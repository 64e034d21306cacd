"""What the faults act on: a writer, a backend, an agent and its disks; and what the oracle knows of them all.

The writer, the backend and the oracle are outside every fault. Directories a fault fills or makes read-only are small
filesystems of their own, mounted only when the caller is root.
"""

import contextlib
import random
import time
from pathlib import Path

import msgspec

from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.oracle import Oracle
from tests.support.waiting import NotInTimeError, wait_for
from tests.support.writer import ROTATIONS, Load, Writer
from tests.torture.disks import Disks

RECOVERY_LIMIT_S = 90.0
# What is compressed while the agent is away and was never seen by it is excluded from reading by the configuration.
SURVIVABLE = tuple(how for how in ROTATIONS if how != "rename_gzip")


class Tally(msgspec.Struct):
    """A row of the table: what one fault did over all its injections."""

    fault: str
    injected: int = 0
    written: int = 0
    lost: int = 0
    twice: int = 0
    unaccounted: int = 0
    wrong: int = 0  # altered or out of order
    recovered_s: list[float] = msgspec.field(default_factory=list)


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

    def close(self) -> None:
        self._exits.close()

    def start(self) -> None:
        self.agent.start()
        self.agent.wait_ready()

    def kill(self) -> None:
        self.agent.must_run()
        self.agent.kill()

    def pause(self, low_s: float, high_s: float) -> None:
        """Let time pass: faults of random length are what this program is about."""
        time.sleep(self.rng.uniform(low_s, high_s))

    def storm(self, rotations_per_s: float, rotations: tuple[str, ...] = SURVIVABLE) -> None:
        self.writer.order("change", load={"storm_per_s": rotations_per_s, "rotations": rotations})

    def wait_for_traffic(self) -> None:
        """Until something has been stored since now."""
        stored = self.backend.stats()["stored"]

        def more() -> bool:
            self.agent.must_run()
            return self.backend.stats()["stored"] > stored

        wait_for(more, "traffic", so_far=self.agent.tail)

    def settle(self, tally: Tally) -> None:
        """After a fault: wait until what was written up to now has arrived, and judge it."""
        healed_s = time.monotonic()
        written = self.writer.state()
        before = (self.oracle.twice, self._wrong())
        try:
            wait_for(lambda: self._complete(written), "recovery", timeout_s=RECOVERY_LIMIT_S, poll_s=0.05)
            tally.recovered_s.append(time.monotonic() - healed_s)
        except NotInTimeError:
            missing = self.oracle.missing(written)
            tally.lost += sum(end - start for ranges in missing.values() for start, end in ranges)
            self.oracle.write_off(missing)
        self.writer.order("remove_rotated")
        tally.twice += self.oracle.twice - before[0]
        tally.wrong += self._wrong() - before[1]

    def finish(self) -> tuple[dict[str, int], int]:
        """Stop writing and the agent; what was written, and how many lines are still missing then."""
        written = self.writer.stop()
        with contextlib.suppress(NotInTimeError):
            wait_for(lambda: self._complete(written), "the last lines", timeout_s=RECOVERY_LIMIT_S, poll_s=0.05)
        self.agent.stop()
        self._complete(written)
        return written, sum(end - start for ranges in self.oracle.missing(written).values() for start, end in ranges)

    def _wrong(self) -> int:
        return len(self.oracle.altered) + len(self.oracle.disordered)

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
