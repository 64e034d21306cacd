"""Two outputs whose spools drop the oldest, with backends that mostly fail: each block ends in exactly one place.

It is delivered, among the dead letters or in the ledger as dropped, whatever the reader's thread, which makes room, and
the sender's, which drains, do at the same moment.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.config.model import SpoolConfig
from hostagent.errors import PermanentError, TemporaryError
from hostagent.model import Block, Delivery, FileId, Fingerprint, Verdict
from hostagent.state.checkpoint import Checkpoint, FileRow
from hostagent.state.dead_letters import DeadLetters
from hostagent.state.spool.spool import Spool
from tests.deliver.stage import ScriptedOutput, Stage
from tests.support.waiting import wait_for

MIB = 1024 * 1024
BLOCKS = 150


class Backend:
    """Fails nearly always, until it is well."""

    def __init__(self, seed: float) -> None:
        self.well = False
        self._rng = random.Random(seed)
        self.output = ScriptedOutput(self._answer)

    def _answer(self, _delivery: Delivery) -> Verdict:
        luck = self._rng.random()
        if not self.well and luck < 0.97:
            raise TemporaryError("down", 0.001)
        if not self.well and luck < 0.98:
            raise PermanentError("not like this")
        return Verdict()


@contextmanager
def nudged(stages: dict[str, Stage]) -> Iterator[None]:
    """No back-off lasts while this does."""
    over = threading.Event()

    def nudge() -> None:
        while not over.wait(0.001):
            for stage in stages.values():
                stage.lane.nudge()

    thread = threading.Thread(target=nudge)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def places(block: Block, backend: Backend, letters: DeadLetters, checkpoint: Checkpoint) -> list[str]:
    """Where a block has ended."""
    ((span,),) = (part.ranges for part in block.parts)
    found = ["delivered" for delivery in backend.output.acked if delivery.id == block.id]
    found += ["dead" for letter in letters.entries(block.output) if letter.header.block == block.id]
    return found + [
        loss.reason
        for loss in checkpoint.losses(limit=10_000)
        if loss.output == block.output and loss.end is not None and loss.start <= span.start and span.end <= loss.end
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_each_block_ends_in_one_place(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    clock = Clock()
    checkpoint = Checkpoint.open(tmp_path, clock)
    row = FileRow(identity=FileId(1, 2, 3), fingerprint=Fingerprint(0, b""), path="/a", target="t", source="s")
    (file,) = checkpoint.add_files([row])
    letters = DeadLetters(tmp_path, clock, checkpoint.add_losses)
    config = SpoolConfig(max_bytes=2 * MIB, when_full="drop_oldest", reserve_bytes=0)
    backends = {name: Backend(rng.random()) for name in ("one", "two")}
    stages: dict[str, Stage] = {}
    for name, backend in backends.items():
        letters.bound(name, 8 * MIB)
        spool = Spool.open(tmp_path, name, config, clock, checkpoint)
        stages[name] = Stage(backend.output, name=name, spool=spool, journal=checkpoint, letters=letters)
        stages[name].lane.start()
    with nudged(stages):
        for _ in range(BLOCKS):
            for stage in stages.values():
                wait_for(stage.lane.room, "room")
                stage.block(rng.randbytes(40_000).replace(b"\n", b"x"), file=file)
                if rng.random() < 0.4:
                    stage.lane.spool_now((file,))
        for name, stage in stages.items():
            backends[name].well = True
            wait_for(stage.lane.idle, "idle")
    ended = []
    for name, stage in stages.items():
        stage.end()
        assert len(stage.acked) == BLOCKS
        ended += [places(block, backends[name], letters, checkpoint) for block in stage.acked]
    letters.close()
    checkpoint.close()
    assert [found for found in ended if len(found) != 1] == []
    assert {found[0] for found in ended} >= {"delivered", "spool_dropped"}
