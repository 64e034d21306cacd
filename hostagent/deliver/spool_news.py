"""What the checkpoint has to be told of a spool with its next commit: blocks that were put in, and how far it is.

Beside the backlog, which knows when a commit is made. It writes nothing and changes nothing in the spool.
"""

from __future__ import annotations

from hostagent.clock import Clock
from hostagent.model import Block
from hostagent.state.database.listing import SpoolChange
from hostagent.state.spool.spool import Spool
from hostagent.state.spool.spooled import Place

# While a spool is drained, its head's place waits for another commit, but not longer than this.
HEAD_DELAY_S = 0.2


class SpoolNews:
    """Gathers what changed in one output's spool since the last commit."""

    def __init__(self, output: str, clock: Clock) -> None:
        self._output = output
        self._clock = clock
        self._added: list[tuple[Place, Block]] = []
        self._known_head: Place | None = None
        self._known_since_s = 0.0

    def add(self, place: Place, block: Block) -> None:
        """A block is durable at this place."""
        self._added.append((place, block))

    def change(self, spool: Spool | None, *, waits: bool) -> SpoolChange | None:
        """What there is to tell, if anything; the same until `committed`.

        While the spool `waits` to be drained, that its head has moved on is told now and then only.
        """
        if spool is None or (head := spool.place) is None:
            return None
        added = [(place, block) for place, block in self._added if spool.holds(place)]
        gone = [block for place, block in self._added if spool.gave_up(place)]
        late = not waits or self._clock.monotonic_s() - self._known_since_s >= HEAD_DELAY_S
        news = bool(added or gone) or (head != self._known_head and late)
        return SpoolChange(self._output, added, head, spool.end, gone) if news else None

    def committed(self, change: SpoolChange | None) -> None:
        """The checkpoint knows it."""
        self._added = []
        if change is not None:
            self._known_head = change.head
            self._known_since_s = self._clock.monotonic_s()
