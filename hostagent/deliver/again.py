"""What was given up once and is to be sent once more, because an operator says so.

Owns the line of such deliveries for one output, and whose turn it is. They come after what is due anyway, one at a
time, and move no position: their bytes were done with long ago.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hostagent.model import Delivery
from hostagent.state.letters import LetterPart


class Again(NamedTuple):
    """A delivery, and where its records came from."""

    delivery: Delivery
    parts: Sequence[LetterPart]


class AgainQueue:
    """Filled from any thread; `head` and `done` are the sender's."""

    def __init__(self) -> None:
        self._sources: deque[Iterator[Again]] = deque()
        self._head: Again | None = None

    def put(self, source: Iterator[Again]) -> None:
        """Deliveries to be pulled one by one; each is pulled when the one before is done."""
        self._sources.append(source)

    def head(self) -> Again | None:
        """The next, the same one until `done`."""
        while self._head is None and self._sources:
            self._head = next(self._sources[0], None)
            if self._head is None:
                self._sources.popleft()
        return self._head

    def done(self) -> None:
        """What `head` gave is delivered, or among the dead letters again."""
        self._head = None
