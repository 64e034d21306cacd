"""What the tests of delivery share: parts to deliver, and a lane around a given output.

The output is a program of answers here, since it is the far side of what is tested; everything between
is the real thing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from hostagent.clock import Clock
from hostagent.deliver.compress import build_compressor
from hostagent.deliver.credits import Credits
from hostagent.deliver.lane import Lane
from hostagent.deliver.transfer import DeadLetterBox, Divisions
from hostagent.deliver.waiting import Journal
from hostagent.errors import StateError
from hostagent.hookspecs import Output
from hostagent.model import Batch, Block, Delivery, Encoded, Part, Range, Verdict
from hostagent.state.database.listing import SpoolChange
from hostagent.state.letters import LetterPart
from hostagent.state.spool.spool import Spool

DEADLINE_S = 20.0


class LineEncoder:
    """Lines in, lines out; delivery never asks an encoder for more than to join and split. It may `fail` so often."""

    content_type = "application/x-ndjson"
    timed = False
    fail = 0

    def encode(self, batch: Batch, observed_ns: int) -> Encoded:
        raise NotImplementedError

    def join(self, payloads: list[bytes]) -> bytes:
        if self.fail:
            self.fail -= 1
            raise MemoryError("no memory")
        return b"".join(payloads)

    def split(self, body: bytes) -> list[bytes]:
        return body.splitlines(keepends=True)


class MemoryJournal:
    """Keeps what was committed, in order, and refuses while `broken` is set."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.commits = 0
        self.broken = threading.Event()
        self.refused = 0

    def commit(self, begun: Sequence[Block], acked: Sequence[Block], spool: SpoolChange | None = None) -> None:
        if self.broken.is_set():
            self.refused += 1
            raise StateError("the disk is full")
        self.commits += 1
        self.log += [("acked", block.id) for block in acked] + [("begun", block.id) for block in begun]

    def acked(self) -> list[str]:
        return [name for what, name in self.log if what == "acked"]


class LetterBox:
    def __init__(self) -> None:
        self.letters: list[tuple[str, bytes, str]] = []
        self.parts: list[LetterPart] = []

    def put(
        self,
        *,
        output: str,
        delivery: Delivery,
        letters: Sequence[tuple[bytes, str]],
        parts: Sequence[LetterPart] = (),
    ) -> None:
        self.parts += parts
        self.letters += [(delivery.id, record, reason) for record, reason in letters]


class Divided:
    """Remembers in memory what was too large."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def was_divided(self, delivery: Delivery) -> bool:
        return delivery.id in self.ids

    def note_divided(self, output: str, delivery: Delivery) -> None:
        self.ids.add(delivery.id)


class ScriptedOutput:
    """Answers each request with what `answer` says or raises, and remembers what it was sent."""

    def __init__(self, answer: Callable[[Delivery], Verdict] | None = None) -> None:
        self.answer = answer or (lambda _delivery: Verdict())
        self.seen: list[Delivery] = []
        self.acked: list[Delivery] = []
        self.closed = False

    def send(self, delivery: Delivery) -> Verdict:
        self.seen.append(delivery)
        verdict = self.answer(delivery)
        self.acked.append(delivery)
        return verdict

    def close(self) -> None:
        self.closed = True


class Stage:
    """A lane with everything around it, and what its callbacks were told."""

    def __init__(
        self,
        output: Output,
        *,
        clock: Clock | None = None,
        pool: Credits | None = None,
        compression: str = "none",
        max_block_bytes: int = 1000,
        name: str = "main",
        spool: Spool | None = None,
        journal: Journal | None = None,
        letters: DeadLetterBox | None = None,
        divisions: Divisions | None = None,
    ) -> None:
        self.journal = MemoryJournal()
        self.output = output
        self.letters = LetterBox()
        self.acked: list[Block] = []
        self.rooms = 0
        self.encoder = LineEncoder()
        self.lane = Lane(
            name=name,
            encoder=self.encoder,
            encoder_key="lines",
            output=output,
            make_compressor=partial(build_compressor, compression),
            journal=journal or self.journal,
            epoch="e1",
            spool=spool,
            dead_letters=letters or self.letters,
            divisions=divisions or Divided(),
            credits=pool or Credits(1 << 20, 1),
            clock=clock or Clock(),
            max_block_bytes=max_block_bytes,
            max_wait_s=0.5,
            on_room=self._room,
            on_acked=self.acked.append,
        )
        self._next = 0

    def _room(self) -> None:
        self.rooms += 1

    def add(self, *lines: bytes, file: int = 1) -> None:
        self.lane.observed_ns()
        self.lane.add(part(*lines, file=file, start=self._next))
        self._next += sum(len(line) + 1 for line in lines)

    def block(self, *lines: bytes, file: int = 1) -> None:
        self.add(*lines, file=file)
        self.lane.flush()

    def end(self, deadline_s: float = DEADLINE_S) -> None:
        self.lane.stop(time.monotonic() + deadline_s)
        assert self.lane.join(DEADLINE_S), "the sender did not end"


def part(*lines: bytes, file: int = 1, start: int = 0) -> Part:
    payload = b"".join(line + b"\n" for line in lines)
    end = start + len(payload)
    return Part((Range(file, start, end, b"a" * 16),), "chain", "source", payload, len(lines), len(payload))
