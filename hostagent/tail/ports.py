"""What the reader needs from its neighbours, as protocols: the chain it feeds and the lanes it fills.

The stages don't import each other. The daemon hands the reader objects of these shapes; process and deliver have the
real ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hostagent.hookspecs import Encoder
from hostagent.model import Block, Part, Processed, Scalar


class Chain(Protocol):
    """A pure function from bytes to batches. `digest` names everything that decides its output bytes."""

    @property
    def digest(self) -> str:
        """Stable name of the configuration behind this chain."""

    @property
    def flush_after_s(self) -> float | None:
        """How long an open multi-line group may wait for its next line; None when no line is ever held back."""

    @property
    def joins_lines(self) -> bool:
        """Whether a record may span lines, and so a rotation."""

    @property
    def reach_bytes(self) -> int:
        """Given this many bytes, a call consumes some of them, whatever they are."""

    def whole_lines(self, data: bytes) -> int:
        """How many of these bytes are whole lines, in the file's own encoding."""

    def process(self, data: bytes, constants: Mapping[str, Scalar], *, final: bool) -> Processed:
        """Make batches of whole records; with `final`, of everything."""


class Lane(Protocol):
    """One output as the reader sees it. Every method but `name` and `room` is the reader thread's alone."""

    name: str
    encoder: Encoder
    encoder_key: str

    def room(self) -> bool:
        """Whether another part may be added now."""

    def observed_ns(self) -> int:
        """Wall time at which the open block was opened; opens one."""

    def add(self, part: Part) -> None:
        """Take one part; cuts the block when it is full."""

    def flush_due(self, now_s: float) -> float | None:
        """Cut the open block when its time is up; seconds until it is, None when nothing is open."""

    def flush(self) -> None:
        """Cut the open block now."""

    def offer_resumed(self, block: Block) -> None:
        """Queue a block that was in flight at a crash, cut again; called before anything new."""

    def spool_now(self, files: Sequence[int]) -> bool:
        """Put blocks with ranges of these files where no crash can lose them, even while the backend is healthy.

        False while that can't be done: what is not acked by then has only its descriptor.
        """

    def idle(self) -> bool:
        """Nothing open, queued or unacked."""
