"""The life of a log file as a state machine: writes, rotations of every kind, truncation, deletion, stops and kills.

A real agent follows real files; a backend and an oracle outside it say what arrived. The machine never waits before
something the agent must survive. It waits for the agent, or leaves the step out, only where the bytes would be gone
before anybody could have read them; each such place says why.
"""

import itertools
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.agent import Agent
from tests.support.backend import Backend
from tests.support.oracle import Oracle
from tests.support.streams import LogStream
from tests.support.waiting import wait_for

COUNTS = st.integers(1, 30)
PICKS = st.integers(0, 9)
_numbers = itertools.count()


class FileLife(RuleBasedStateMachine):
    """One log file, its rotated companions, one agent."""

    backend: Backend  # given by the test: one receiver serves all examples

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="hostagent-life."))
        self.logs = self.directory / "logs"
        self.logs.mkdir()
        self.path = f"/life/{next(_numbers)}"
        self.oracle = Oracle()
        self.follows_rotated = False
        self.generations: dict[Path, int] = {}
        self.failed = False

    @initialize(
        follows_rotated=st.booleans(),
        text_length=st.sampled_from([1, 120, 3000]),
        compression=st.sampled_from(["zstd", "gzip", "none"]),
        start_with=st.sampled_from([0, 5]),
    )
    def begin(self, follows_rotated: bool, text_length: int, compression: str, start_with: int) -> None:
        """With `follows_rotated` the include matches rotated names too, as in /var/log/app.log*."""
        self.follows_rotated = follows_rotated
        self.stream = LogStream(self.logs, "app", text_length=text_length)
        include = f"{self.logs}/app.log*" if follows_rotated else f"{self.logs}/app.log"
        source: dict[str, Any] = {"type": "file", "include": [include], "exclude": ["*.gz"]}
        output = {
            "type": "http",
            "url": self.backend.url(self.path),
            "compression": compression,
            "block": {"max_wait": "20ms"},
        }
        self.agent = Agent(self.directory / "agent", {"sources": {"app": source}, "outputs": {"main": output}})
        if start_with:
            self.stream.write(start_with)
        self.agent.start()

    # What applications do.

    @rule(count=COUNTS)
    def write(self, count: int) -> None:
        self.stream.write(count)

    @rule(share=st.floats(0.05, 0.95))
    def write_part_of_a_line(self, share: float) -> None:
        self.stream.write_half(share)

    @rule(count=COUNTS)
    def write_while_the_backend_stores_without_answering(self, count: int) -> None:
        self.backend.behave("stored_then_reset", times=1, path=self.path)
        self.stream.write(count)

    @rule(count=COUNTS)
    def write_while_the_backend_fails_once(self, count: int) -> None:
        self.backend.behave("status", status=503, times=1, path=self.path)
        self.stream.write(count)

    # What rotates and destroys.

    @rule(late=st.booleans(), more=COUNTS)
    def rename(self, late: bool, more: int) -> None:
        if not self.stream.path.exists() or not (self.follows_rotated or self._is_known(self.stream.generation)):
            return  # under its new name nobody is told to read it
        self._moved(self.stream.rename(reopen=not late), late)
        if late:
            self.stream.write(more)
            self.stream.reopen()

    @rule(count=st.integers(0, 60))
    def copytruncate(self, count: int) -> None:
        if not self.stream.path.exists() or not (self.follows_rotated or self._is_known(self.stream.generation)):
            return
        generation = self.stream.generation
        self.generations[self.stream.copytruncate()] = generation
        if count:
            self.stream.write(count)

    @rule(count=st.integers(1, 90))
    def truncate_and_regrow(self, count: int) -> None:
        self.stream.finish_line()
        if not self.stream.path.exists():
            return
        if self._has_all_of(self.stream.generation):  # there is no copy to read it from
            self.stream.truncate()
            self.stream.write(count)

    @rule()
    def delete(self) -> None:
        self.stream.finish_line()
        if self.stream.path.exists() and self._may_delete(self.stream.path, self.stream.generation):
            self.stream.delete()

    @rule(pick=PICKS)
    def compress_a_rotated_file(self, pick: int) -> None:
        path = self._rotated(pick)
        if path is None or path.suffix == ".gz":
            return
        generation = self.generations[path]
        if self._is_known(generation):  # a .gz is only read on where its beginning was read before
            del self.generations[path]
            self.generations[self.stream.compress(path)] = generation

    @rule(pick=PICKS)
    def delete_a_rotated_file(self, pick: int) -> None:
        path = self._rotated(pick)
        if path is not None and self._may_delete(path, self.generations[path]):
            del self.generations[path]
            path.unlink()

    # What happens to the agent.

    @precondition(lambda self: self.agent.running)
    @rule(again=st.booleans())
    def stop(self, again: bool) -> None:
        self._stop()
        if again:
            self.agent.start()

    @precondition(lambda self: self.agent.running)
    @rule(again=st.booleans())
    def kill(self, again: bool) -> None:
        self._wait_for_what_a_kill_destroys()
        self.agent.kill()
        if again:
            self.start()

    @precondition(lambda self: not self.agent.running)
    @rule()
    def start(self) -> None:
        self.agent.start()

    @precondition(lambda self: self.agent.running)
    @rule()
    def catch_up(self) -> None:
        self._wait_for_all()

    @invariant()
    def nothing_is_wrong_so_far(self) -> None:
        self._take()
        findings = self.oracle.findings({})
        assert findings.clean, str(findings)

    def teardown(self) -> None:
        if not hasattr(self, "agent"):
            shutil.rmtree(self.directory)
            return
        with self.agent:
            self.backend.behave()
            if self.failed:
                return
            self.stream.finish_line()
            if not self.agent.running:
                self.agent.start()
            self._wait_for_all()
            self._stop()
            self.nothing_is_wrong_so_far()
        self.stream.close()
        shutil.rmtree(self.directory)

    # What the machine knows, from outside the agent.

    def _take(self) -> None:
        self.oracle.take(arrival for arrival in self.backend.new_arrivals() if arrival.entry.path == self.path)

    def _arrived(self, generation: int) -> int:
        self._take()
        return self.oracle.has("app", self.stream.span(generation))

    def _lines(self, generation: int) -> int:
        """Whole lines of a generation; the last line of the live one may still be open."""
        return len(self.stream.span(generation)) - (generation == self.stream.generation and self.stream.open_line)

    def _is_known(self, generation: int) -> bool:
        """Whether the agent has delivered from it, so that it must recognise it from now on. Waits if it runs."""
        if not self._lines(generation):
            return False
        return self._wait(lambda: self._arrived(generation) > 0, f"a line of generation {generation}")

    def _has_all_of(self, generation: int) -> bool:
        """Whether all its lines have arrived. Waits if the agent runs."""
        return self._wait(lambda: self._arrived(generation) >= self._lines(generation), f"generation {generation}")

    def _is_held(self, path: Path) -> bool:
        """Whether the running agent has the file open: then no deletion can take it away."""
        return self.agent.running and path.exists() and path.stat().st_ino in self.agent.open_inodes()

    def _may_delete(self, path: Path, generation: int) -> bool:
        """Whether every line has arrived or the agent can still have it afterwards."""
        return self._is_held(path) or self._has_all_of(generation)

    def _wait(self, condition: Any, what: str) -> bool:  # noqa: ANN401 - a lambda
        if not self.agent.running:
            return bool(condition())
        self.failed = True
        wait_for(condition, what, so_far=self._so_far)
        self.failed = False
        return True

    def _wait_for_all(self) -> None:
        for generation in range(self.stream.generation + 1):
            assert self._has_all_of(generation)

    def _wait_for_what_a_kill_destroys(self) -> None:
        """What only lives in the agent must be safe before it is killed.

        A file that moved to a name nobody is told to read is found by what was known of it. What was deleted or
        truncated must have arrived; its block may well be on its way still.
        """
        kept = {self.stream.generation, *self.generations.values()}
        for generation in range(self.stream.generation + 1):
            if generation not in kept:
                assert self._has_all_of(generation)
            elif generation != self.stream.generation and not self.follows_rotated and self._lines(generation):
                assert self._is_known(generation)

    def _stop(self) -> None:
        # A signal that comes before Python has installed its handlers ends the process as it ends any other.
        assert self.agent.stop() in {0, -signal.SIGTERM}, self.agent.tail()

    def _rotated(self, pick: int) -> Path | None:
        """One of the rotated files. Which there are depends on the agent's speed, so the choice itself must not."""
        paths = sorted(self.generations)
        return paths[pick % len(paths)] if paths else None

    def _moved(self, path: Path, late: bool) -> None:
        self.generations[path] = self.stream.generation - (not late)

    def _so_far(self) -> str:
        self.agent.must_run()
        written = {"app": self.stream.next_seq}
        files = sorted(path.name for path in self.logs.iterdir())
        return f"{self.oracle.findings(written)}\nfiles: {files}\n{self.agent.tail()}"
