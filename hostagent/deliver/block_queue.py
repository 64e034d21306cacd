"""The bounded queue between the reader's thread, which cuts blocks, and one sender's thread, which takes them.

Owns nothing but the order of what waits. Each count is written by one thread only, so nobody waits for a lock here.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from hostagent.model import Block


class Queued(NamedTuple):
    """A block that waits; `durable` when its in-flight row is in the checkpoint already."""

    block: Block
    durable: bool


class BlockQueue:
    """First in, first out. `put` and `room` belong to the reader's thread, `take` and `finished` to the sender's."""

    def __init__(self, max_blocks: int) -> None:
        self.wake = threading.Event()
        self._max_blocks = max_blocks
        self._items: deque[Queued] = deque()
        self._put = 0
        self._finished = 0
        self._starved = False

    @property
    def waiting(self) -> int:
        """Blocks put and not finished yet: those here, and those the sender holds."""
        return self._put - self._finished

    def room(self) -> bool:
        """Whether another block may be put. A "no" is remembered, so that `finished` can say that somebody waits."""
        if self.waiting < self._max_blocks:
            return True
        self._starved = True
        # The sender may have finished a block between the look and the mark, and then nobody would wake us.
        return self.waiting < self._max_blocks

    def put(self, block: Block, *, durable: bool = False) -> None:
        """Append a block; the reader asks `room` before it gathers one, so this never refuses."""
        self._items.append(Queued(block, durable))
        self._put += 1
        self.wake.set()

    def take(self) -> list[Queued]:
        """All that waits, in order. Clears `wake` first: what is put from now on sets it again."""
        self.wake.clear()
        taken = []
        while self._items:
            taken.append(self._items.popleft())
        return taken

    def finished(self) -> bool:
        """Count one taken block as dealt with; True when the reader had been told "no"."""
        self._finished += 1
        starved, self._starved = self._starved, False
        return starved
