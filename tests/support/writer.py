"""Writes logs outside the agent, as applications and logrotate do, and knows exactly what it wrote.

LogStream is one log of one application with everything that can happen to its file. Run as a program it is a load
generator that takes orders on standard input, one JSON object a line, and answers each with where every stream stands.
"""

import gzip
import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.support.lines import make_line

CHECKOUT = Path(__file__).resolve().parents[2]
ROTATIONS = ("rename", "rename_late_reopen", "copytruncate", "rename_gzip", "hard_link", "symlink_swap")


class LogStream:
    """One log: `path` is the live file. Each truncation or new file begins a generation, which only grows."""

    def __init__(self, directory: Path, name: str, *, text_length: int = 120, plain: bool = False) -> None:
        self.name = name
        self.path = directory / f"{name}.log"
        self.text_length = text_length
        self.plain = plain
        self.generation = 0
        self.next_seq = 0
        self.rotated: list[Path] = []
        self._first_seqs = [0]
        self._fd = -1
        self._serial = 0
        self._pending = b""

    def span(self, generation: int) -> range:
        """The numbers of the lines of a generation."""
        ends = [*self._first_seqs[1:], self.next_seq]
        return range(self._first_seqs[generation], ends[generation])

    def write(self, count: int, *, now_ns: int = 0) -> int:
        """Append whole lines in one write; how many bytes. A line begun by write_half is completed first."""
        numbers = range(self.next_seq, self.next_seq + count)
        lines = [
            make_line(self.name, self.generation, seq, now_ns, self.text_length, plain=self.plain) for seq in numbers
        ]
        pending, self._pending = self._pending, b""
        self.next_seq += count
        return self._append(pending + b"".join(lines))

    def write_half(self, share: float) -> None:
        """Begin a line, or go on with the one that is open, without ending it."""
        if not self._pending:
            self._pending = make_line(self.name, self.generation, self.next_seq, 0, self.text_length, plain=self.plain)
            self.next_seq += 1
        cut = min(len(self._pending) - 1, int(len(self._pending) * share))
        self._append(self._pending[:cut])
        self._pending = self._pending[cut:]

    @property
    def open_line(self) -> bool:
        """Whether the last line is still without its newline."""
        return bool(self._pending)

    def finish_line(self) -> None:
        if self._pending:
            self.write(0)

    def rename(self, *, reopen: bool = True) -> Path:
        """Move the live file away. Without `reopen` the application keeps writing to the moved file for now."""
        moved = self._rotated_name()
        os.rename(self.path, moved)
        self.rotated.append(moved)
        if reopen:
            self.reopen()
        return moved

    def reopen(self) -> None:
        """What an application does on SIGHUP: from now on the live file, created when it is missing."""
        self.finish_line()
        self.close()
        self._begin_generation()
        self._open()

    def copytruncate(self) -> Path:
        """Copytruncate as logrotate does it, without the gap in which others could write."""
        self.finish_line()
        copy = self._rotated_name()
        shutil.copyfile(self.path, copy)
        self.rotated.append(copy)
        self.truncate()
        return copy

    def truncate(self) -> None:
        """Everything in the live file is gone; the caller knows who has read it."""
        self._pending = b""
        os.truncate(self.path, 0)
        self._begin_generation()

    def delete(self) -> None:
        """Unlink the live file and start a new one with the next write."""
        self.finish_line()
        self.close()
        os.unlink(self.path)
        self._begin_generation()

    def compress(self, rotated: Path) -> Path:
        """Compress as logrotate does: the compressed file appears beside the other, which then goes."""
        packed = rotated.with_name(rotated.name + ".gz")
        with rotated.open("rb") as plain, gzip.open(packed, "wb", compresslevel=1) as target:
            shutil.copyfileobj(plain, target)
        os.unlink(rotated)
        self.rotated = [packed if path == rotated else path for path in self.rotated]
        return packed

    def rotate(self, how: str) -> None:
        """One of ROTATIONS."""
        if not self.path.exists():
            self._open()
        match how:
            case "rename":
                self.rename()
            case "rename_late_reopen":
                self.rename(reopen=False)
                self.write(3)
                self.reopen()
            case "copytruncate":
                self.copytruncate()
            case "rename_gzip":
                # With delaycompress, as most configurations have it: the one before is compressed.
                if self.rotated and self.rotated[-1].suffix != ".gz" and self.rotated[-1] != self.path.resolve():
                    self.compress(self.rotated[-1])
                self.rename()
            case "hard_link":
                linked = self._rotated_name()
                os.link(self.path, linked)
                os.unlink(self.path)
                self.rotated.append(linked)
                self.reopen()
            case "symlink_swap":
                self._symlink_swap()
            case _:
                raise ValueError(f"{how!r} is no rotation; there are: {', '.join(ROTATIONS)}")

    def remove_rotated(self) -> None:
        for path in self.rotated:
            path.unlink(missing_ok=True)
        self.rotated = []

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _symlink_swap(self) -> None:
        """The live name becomes a symbolic link to a dated file, as some loggers keep their `current`."""
        self.finish_line()
        dated = self._rotated_name()
        if self.path.is_symlink():
            self.rotated.append(self.path.resolve())
        else:
            previous = self._rotated_name()
            os.rename(self.path, previous)
            self.rotated.append(previous)
        link = self.path.with_name(f".{self.name}.new")
        dated.touch()
        os.symlink(dated, link)
        os.rename(link, self.path)
        self.reopen()

    def _begin_generation(self) -> None:
        self.generation += 1
        self._first_seqs.append(self.next_seq)

    def _rotated_name(self) -> Path:
        self._serial += 1
        return self.path.with_name(f"{self.path.name}.{self._serial}")

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _append(self, data: bytes) -> int:
        if self._fd < 0:
            self._open()
        if os.write(self._fd, data) != len(data):
            raise OSError(f"{self.path} took only a part: is the disk full?")
        return len(data)


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
        self._rng = random.Random(load.seed)
        self._paused = False
        self._turn = 0
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
            self._rng.choice(self.streams).rotate(self._rng.choice(self.load.rotations))

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
                    stream.remove_rotated()
            case "rotate":
                for stream in self.streams:
                    stream.rotate(order["how"])
            case "delete":
                for stream in self.streams:
                    stream.write(1, now_ns=time.time_ns())
                    stream.delete()
            case "stop":
                self._answer()
                return False
        self._answer()
        return True

    def _answer(self) -> None:
        print(json.dumps({stream.name: stream.next_seq for stream in self.streams}), flush=True)


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
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the writer ended with {self._process.wait(10)}; its message stands above")
        state: dict[str, int] = json.loads(answer)
        return state

    def state(self) -> dict[str, int]:
        return self.order("state")

    def stop(self) -> dict[str, int]:
        """End it; the answer is what it wrote in all."""
        if self._process.poll() is not None:
            return {}
        written = self.order("stop")
        self._process.communicate(timeout=10)
        return written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._process.poll() is None:
            self._process.communicate(timeout=10)


if __name__ == "__main__":
    LoadWriter(msgspec.json.decode(sys.argv[1], type=Load)).run()
