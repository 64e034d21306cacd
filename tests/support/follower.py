"""An agent's reader that moves only when it is told to, for tests in which every step of the world must come between.

The reader, its registry and its checkpoint are the real ones, on real files with the kernel's own events; the clock is
turned by hand, and what stands for an output keeps what it is given.
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hostagent.deliver.blocks import BlockBuilder
from hostagent.hookspecs import Encoder
from hostagent.model import Block, Loss, Part, Target
from hostagent.process.chain import Chain
from hostagent.process.framing.raw import RawFraming
from hostagent.process.ndjson import NdjsonEncoder
from hostagent.state.checkpoint import Checkpoint
from hostagent.tail.builtin import FileTailer, GzipTailer
from hostagent.tail.cutting import Cutter
from hostagent.tail.feed import Feed
from hostagent.tail.files.closed import ClosedFiles
from hostagent.tail.files.known import KnownRows
from hostagent.tail.files.openfiles import OpenFiles
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.paths import compile_selection
from hostagent.tail.finding.places import Place, Places
from hostagent.tail.origin import Origin, Policy
from hostagent.tail.reader import Reader
from hostagent.tail.recut import Reclaiming
from hostagent.tail.watching.events import Event
from hostagent.tail.watching.watcher import Watcher
from tests.tail.clock import HandClock

GRACE_S = 0.5
EXCLUDED = ("*.gz", "*.tmp")


class EagerWatcher(Watcher):
    """Tells what there is, and waits for nothing."""

    def read(self, timeout_s: float | None) -> list[Event]:
        return super().read(0.0)

    def read_names(self, timeout_s: float) -> list[Event]:
        return super().read_names(0.0)


class Store:
    """Keeps the messages of every block it is given, once for each id."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self._stored: dict[str, tuple[bytes, ...]] = {}

    def store(self, block: Block) -> None:
        body = tuple(part.payload for part in block.parts)
        known = self._stored.setdefault(block.id, body)
        assert block.indexes is not None or known == body, "other bytes under the same id"
        if known is body:
            for line in b"".join(body).splitlines():
                self.messages[json.loads(line)["message"]] += 1


class Output:
    """A lane whose backend takes a block at once, keeps it without an answer, or can't be reached."""

    encoder_key = "ndjson"

    def __init__(self, backend: Store, checkpoint: Checkpoint, clock: HandClock) -> None:
        self.name = "main"
        self.encoder: Encoder = NdjsonEncoder()
        self.answers = True
        self.reader: Reader | None = None
        self._backend = backend
        self._checkpoint = checkpoint
        self._clock = clock
        self._waiting: list[Block] = []
        self._builder = BlockBuilder(
            output=self.name, epoch=checkpoint.epoch, encoder_key=self.encoder_key, max_bytes=2000, max_wait_s=0.02
        )

    def room(self) -> bool:
        return len(self._waiting) < 4

    def observed_ns(self) -> int:
        return self._builder.open(self._clock.wall_ns(), self._clock.monotonic_s())

    def add(self, part: Part) -> None:
        block = self._builder.add(part)
        if block is not None:
            self._begin(block)

    def flush_due(self, now_s: float) -> float | None:
        due_s = self._builder.due_in_s(now_s)
        if due_s == 0.0:
            self.flush()
        return due_s

    def flush(self) -> None:
        block = self._builder.cut()
        if block is not None:
            self._begin(block)

    def offer_resumed(self, block: Block) -> None:
        self._waiting.append(block)
        self.deliver()

    def _begin(self, block: Block) -> None:
        self._checkpoint.commit([block], [])
        self._waiting.append(block)
        self._backend.store(block)
        self.deliver()

    def deliver(self) -> None:
        """Have what waits stored, and acknowledged if the backend answers."""
        if not self.answers:
            return
        acked, self._waiting = self._waiting, []
        for block in acked:
            self._backend.store(block)
        if acked:
            self._checkpoint.commit([], acked)
            for block in acked:
                if self.reader is not None:
                    self.reader.note_acked(block)

    def spool_now(self, files: Sequence[int]) -> bool:
        """A spool of its own it has not; a backend that answers for once is as good."""
        self.flush()
        before, self.answers = self.answers, True
        self.deliver()
        self.answers = before
        return True

    def idle(self) -> bool:
        return not self._waiting and not self._builder.has_parts


class Follower:
    """One run of the agent's reader."""

    def __init__(
        self,
        directory: Path,
        patterns: Sequence[str],
        backend: Store,
        clock: HandClock,
        most: int,
        *,
        promised: bool = False,
    ) -> None:
        self._stop = threading.Event()
        self._clock = clock
        clock.per_look_s = 0.001  # a pause must come to an end
        self.checkpoint = Checkpoint.open(directory, clock)
        self.output = Output(backend, self.checkpoint, clock)
        self._watcher = EagerWatcher(clock)
        files = OpenFiles({"file": FileTailer(), "gzip": GzipTailer()}, most)
        known = KnownRows(self.checkpoint.files(), self.checkpoint.furthest_in_flight())
        self.registry = Registry(files, self.checkpoint, known, clock)
        places = Places(self._watcher)
        cutter = Cutter(self.registry, ClosedFiles(files, self.checkpoint, places), clock)
        self.reader = Reader(
            registry=self.registry,
            places=places,
            watcher=self._watcher,
            feed=Feed(4096),
            lanes=(self.output,),
            clock=clock,
            rescan_interval_s=10.0,
            max_deleted_bytes=1 << 30,
            reclaiming=Reclaiming(cutter, self.checkpoint, clock),
        )
        self.output.reader = self.reader
        target = Target(id="app", source="app", paths=tuple(patterns), exclude=EXCLUDED, promised=promised)
        policy = Policy("beginning", None, GRACE_S, drop_page_cache=False)
        chain = Chain(framing=RawFraming(), joins_lines=False)
        place = Place(
            Origin(target, chain, (self.output,), {}, policy), compile_selection(target.paths, target.exclude)
        )
        self.reader.post(lambda: self.reader.open_target(place))
        self.reader.prepare()
        self.reader.resume(self._stop)

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.reader.step()
            self._clock.now_s += 0.01

    def settle(self, for_s: float) -> None:
        """Let time pass in steps."""
        until_s = self._clock.now_s + for_s
        while self._clock.now_s < until_s:
            self.look(2)
            self._clock.now_s += 0.15

    def holds(self, inode: int) -> bool:
        contents = [tailed.content for tailed in self.registry.all_files()]
        return any(content is not None and os.fstat(content.fd).st_ino == inode for content in contents)

    def losses(self) -> list[Loss]:
        """What is in the ledger, but for what any copytruncate brings."""
        return [loss for loss in self.checkpoint.losses() if loss.reason != "copytruncate"]

    def kill(self) -> None:
        """Nothing is finished: only what is in the checkpoint stays."""
        for tailed in self.registry.all_files():
            tailed.close()
        self.registry.files.close()
        self._watcher.close()
        self.checkpoint.close()

    def stop(self) -> None:
        self._stop.set()
        self.reader.run(self._stop)
        self.output.answers = True
        self.output.deliver()
        self.reader.finish()
        self.kill()
