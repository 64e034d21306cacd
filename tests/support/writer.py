"""Writes logs outside the agent, as applications and logrotate do, and knows exactly what it wrote.

Run as a program it is a load generator that takes orders on standard input, one JSON object a line, and answers each
with where every stream stands, or with what was asked about the bytes of its lines.
"""

import json
import random
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.support.generations import Bytes, Identity
from tests.support.lines import make_line
from tests.support.streams import ROTATIONS, LogStream

CHECKOUT = Path(__file__).resolve().parents[2]
# A log whose last name goes before anybody can have looked is read by nobody.
COMPRESS_AFTER_S = 0.5


class Load(msgspec.Struct, frozen=True):
    """What the writer process is to write. `storm_per_s` rotations a second in all, of kinds drawn from `rotations`."""

    directory: str
    streams: int
    bytes_per_s: float
    text_length: int = 120
    plain: bool = False  # ASCII words only
    seed: int = 0
    storm_per_s: float = 0.0
    rotations: tuple[str, ...] = ROTATIONS
    in_turn: bool = False  # rotate the streams in turn, so that every file lives a while
    chunk_lines: int = 0  # lines per write; 0: what 10 ms take


class LoadWriter:
    """Keeps to a rate in bytes per second, evenly over its streams."""

    TICK_S = 0.01

    def __init__(self, load: Load) -> None:
        self.load = load
        self.streams = [
            LogStream(Path(load.directory), f"app{number:03}", text_length=load.text_length, plain=load.plain)
            for number in range(load.streams)
        ]
        for stream in self.streams:
            stream.compress_after_s = COMPRESS_AFTER_S
        self._rng = random.Random(load.seed)
        self._paused = False
        self._turn = 0
        self._rotation = 0
        self._owed = 0.0
        self._rotations_owed = 0.0
        self._line_bytes = len(make_line("app000", 0, 10**6, 10**18, load.text_length))

    def run(self) -> None:
        before_s = time.monotonic()
        while True:
            ready, _, _ = select.select([sys.stdin], [], [], self.TICK_S)
            if ready and not self._obey(sys.stdin.readline()):
                return
            now_s = time.monotonic()
            self._work(now_s - before_s)
            before_s = now_s

    def _work(self, elapsed_s: float) -> None:
        if self._paused:
            return
        # After a pause of the machine the rate is kept, the debt is not: at most a quarter of a second at once.
        elapsed_s = min(elapsed_s, 0.25)
        self._owed += elapsed_s * self.load.bytes_per_s
        chunk = self.load.chunk_lines or max(1, int(self.load.bytes_per_s * self.TICK_S / self._line_bytes))
        while self._owed >= chunk * self._line_bytes:
            stream = self.streams[self._turn % len(self.streams)]
            self._turn += 1
            self._owed -= stream.write(chunk, now_ns=time.time_ns())
        self._rotations_owed += elapsed_s * self.load.storm_per_s
        while self._rotations_owed >= 1:
            self._rotations_owed -= 1
            self._rotation += 1
            turn = self._rotation if self.load.in_turn else self._rng.randrange(len(self.streams))
            self.streams[turn % len(self.streams)].rotate(self._rng.choice(self.load.rotations))

    def _obey(self, line: str) -> bool:
        order: dict[str, Any] = json.loads(line) if line else {"do": "stop"}
        match order["do"]:
            case "pause":
                self._paused = True
            case "resume":
                self._paused = False
            case "change":
                self.load = msgspec.structs.replace(self.load, **order["load"])
            case "remove_rotated":
                for stream in self.streams:
                    stream.remove_rotated(order["below"][stream.name])
            case "rotate":
                for stream in self.streams:
                    stream.rotate(order["how"])
            case "delete":
                for stream in self.streams:
                    stream.write(order.get("last_words", 1), now_ns=time.time_ns())
                    stream.delete()
            case "where" | "whose" | "lines" | "reuse_inodes":
                self._say(self._look_up(order))
                return True
        self._say({stream.name: stream.next_seq for stream in self.streams})
        return bool(order["do"] != "stop")

    def _look_up(self, order: dict[str, Any]) -> list[Any] | int:
        books = {stream.name: stream.books for stream in self.streams}
        match order["do"]:
            case "reuse_inodes":
                return sum(stream.reuse_inode() for stream in self.streams)
            case "where":
                return [books[name].bytes_of(first, last) for name, first, last in order["ranges"]]
            case "whose":
                return [
                    self._owner(Identity(*identity), length, digest) for *identity, length, digest in order["files"]
                ]
            case _:
                spans = [books[name].lines_in(*place) for name, *place in order["places"]]
                return [(span.start, span.stop) for span in spans]

    def _owner(self, identity: Identity, length: int, digest: str) -> tuple[str, int] | None:
        found = [(stream.name, stream.books.find(identity, length, bytes.fromhex(digest))) for stream in self.streams]
        owners = [(name, generation) for name, generation in found if generation is not None]
        return owners[0] if len(owners) == 1 else None

    def _say(self, answer: object) -> None:
        print(json.dumps(answer), flush=True)


class Writer:
    """The test's side of a writer process."""

    def __init__(self, load: Load) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.writer", json.dumps(msgspec.to_builtins(load))],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def order(self, do: str, **details: Any) -> dict[str, int]:  # noqa: ANN401 - JSON
        """Give an order; the answer says up to which number each stream was written."""
        state: dict[str, int] = self._ask(do, details)
        return state

    def where(self, ranges: list[tuple[str, int, int]]) -> list[list[Bytes]]:
        """Which bytes the lines [first, last) of a stream are, for each (stream, first, last)."""
        return [[Bytes(*one) for one in found] for found in self._ask("where", {"ranges": ranges})]

    def whose(self, files: list[tuple[int, int, int, int, str]]) -> list[tuple[str, int] | None]:
        """Stream and generation of each (device, inode, birth, length and digest of its beginning)."""
        return [tuple(found) if found else None for found in self._ask("whose", {"files": files})]

    def lines(self, places: list[tuple[str, int, int, int]]) -> list[range]:
        """The numbers of the lines that lie wholly in each (stream, generation, start, end)."""
        return [range(*found) for found in self._ask("lines", {"places": places})]

    def reuse_inodes(self) -> int:
        """Begin the logs that were just deleted anew in files with the same inodes; how many got theirs."""
        return int(self._ask("reuse_inodes", {}))

    def _ask(self, do: str, details: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the writer ended with {self._process.wait(30)}; its message stands above")
        return json.loads(answer)

    def state(self) -> dict[str, int]:
        return self.order("state")

    def stop(self) -> dict[str, int]:
        """End it; the answer is what it wrote in all."""
        if self._process.poll() is not None:
            return {}
        written = self.order("stop")
        self._process.communicate(timeout=30)
        return written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._process.poll() is None:
            self._process.communicate(timeout=30)


if __name__ == "__main__":
    LoadWriter(msgspec.json.decode(sys.argv[1], type=Load)).run()
