"""What a backlog is made of: blocks that wait in memory, the one on its way, and the journal that must know of them.

Between a block's being cut and its ack. Values, one protocol and the first thing that is written of a block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from hostagent.errors import StateError
from hostagent.model import Block, Delivery
from hostagent.state.database.listing import SpoolChange
from hostagent.state.rows import InflightPart


class Journal(Protocol):
    """The checkpoint as deliver sees it."""

    def commit(self, begun: Sequence[Block], acked: Sequence[Block], spool: SpoolChange | None = None) -> None:
        """In one transaction: in-flight rows in, positions forward, rows of the acked out. Raises StateError."""


class Waiting(NamedTuple):
    """A block in memory; `durable` when its in-flight row is in the checkpoint, `cut_s` when it was put here."""

    block: Block
    durable: bool
    cut_s: float


def begin(journal: Journal, waiting: Iterable[Waiting], *, needed: bool = True) -> None:
    """Have blocks in flight before a spool gets them.

    An agent that is killed before it commits that they are spooled, and then can't open the spool, cuts them again; by
    these rows they get the ids that they have in there. Where they come from a file that is going away the spool is the
    safer place all the same, and the rows are not `needed`.
    """
    if begun := [one.block for one in waiting if not one.durable]:
        with contextlib.nullcontext() if needed else contextlib.suppress(StateError):
            journal.commit(begun=begun, acked=())


class Head:
    """The block being delivered: from memory (`waiting`) or from the spool, or put there while it is on its way.

    `parts` say where it came from, whatever becomes of its place in the spool meanwhile.
    """

    def __init__(self, waiting: Waiting | None, delivery: Delivery | None, parts: Sequence[InflightPart]) -> None:
        self.waiting = waiting
        self.delivery = delivery
        self.parts = parts
