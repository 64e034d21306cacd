"""The way of one delivery to its end: sent, sent again, divided, or put among the dead letters.

Owns what each answer of a backend leads to. It must not touch positions: when `deliver` returns, every record has been
acked or dead-lettered, and only then may the sender say so to the checkpoint.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from hostagent.clock import Backoff
from hostagent.deliver.compress import Compressor
from hostagent.deliver.pieces import halves, records_of, rest
from hostagent.deliver.status import Counters
from hostagent.errors import OutputGoneError, PermanentError, StateError, TemporaryError
from hostagent.hookspecs import Encoder, Output
from hostagent.model import Delivery, Outcome, Verdict
from hostagent.state.letters import LetterPart, parts_of_records

log = logging.getLogger(__name__)


class Refused(NamedTuple):
    """What of one delivery was dead-lettered; bytes of log in proportion where only some records of a chunk were."""

    records: int = 0
    raw_bytes: int = 0


class DeadLetterBox(Protocol):
    """Keeps what a backend refused for good, with its reason."""

    def put(
        self,
        *,
        output: str,
        delivery: Delivery,
        letters: Sequence[tuple[bytes, str]],
        parts: Sequence[LetterPart] = (),
    ) -> None:
        """Store records durably before returning; raise StateError when that is not possible now."""


class Divisions(Protocol):
    """Remembers which deliveries a backend found too large, across a crash, too.

    Of a block that was halved, one half may be stored. A backend that has come to take it whole would get that half
    twice, and could not tell.
    """

    def was_divided(self, delivery: Delivery) -> bool:
        """Whether this one was, now or before."""

    def note_divided(self, output: str, delivery: Delivery) -> None:
        """Remember one durably before returning; raise StateError when that is not possible now."""


class Watch(Protocol):
    """Who is told how it goes: the sender."""

    def failed(self, message: str) -> None:
        """The output, or what a delivery needs, can't do it now."""

    def answered(self) -> None:
        """The backend gave a verdict."""

    def pause(self, delay_s: float) -> None:
        """Wait for a back-off; raises to abandon the delivery at a stop."""


class Transfer:
    """Used by one sender's thread.

    A delivery that was abandoned, or left by an unexpected error, goes on where it stood when it is offered again.
    """

    def __init__(
        self,
        *,
        name: str,
        output: Output,
        encoder: Encoder,
        compressor: Compressor,
        dead_letters: DeadLetterBox,
        divisions: Divisions,
        backoff: Backoff,
        watch: Watch,
        counters: Counters,
    ) -> None:
        self._name = name
        self._output = output
        self._encoder = encoder
        self._compressor = compressor
        self._dead_letters = dead_letters
        self._divisions = divisions
        self._backoff = backoff
        self._watch = watch
        self._counters = counters
        self.gone = False
        self._block = ""
        self._pieces: deque[Delivery] = deque()
        self._whole: Delivery | None = None
        self._refused = Refused()
        self._origin: Callable[[], Sequence[LetterPart]] = tuple

    def deliver(self, delivery: Delivery, origin: Callable[[], Sequence[LetterPart]] = tuple) -> Refused:
        """Return when every record of the delivery is acked or dead-lettered; what was the latter.

        `origin` tells where its records came from, and is only asked when some are refused.
        """
        self._origin = origin
        self._whole = delivery
        if self._block != delivery.block or not self._pieces:
            self._block = delivery.block
            self._pieces = deque((delivery,))
            self._refused = Refused()
        while self._pieces:
            instead = self._step(self._pieces[0])
            self._pieces.popleft()
            self._pieces.extendleft(reversed(instead))
        return self._refused

    @property
    def halfway(self) -> bool:
        """Whether the delivery has been divided: then some of it may be done with, and nothing may come in between."""
        return len(self._pieces) != 1 or self._pieces[0] is not self._whole

    def _step(self, piece: Delivery) -> Sequence[Delivery]:
        """Bring one piece to a verdict; the pieces that take its place."""
        if self._divisions.was_divided(piece):
            return self._divide(piece)
        try:
            verdict = self._send(piece)
        except PermanentError as error:
            self._backoff.reset()
            self._watch.answered()
            self._bury(piece, str(error))
            return ()
        if verdict.outcome is Outcome.PARTIAL and verdict.retry:
            return self._sort_out(piece, verdict)
        self._backoff.reset()
        self._watch.answered()
        if verdict.outcome is Outcome.TOO_LARGE:
            return self._divide(piece)
        self._keep_dead(piece, verdict)
        return ()

    def _send(self, piece: Delivery) -> Verdict:
        while True:
            self._counters.requests += 1
            try:
                return self._output.send(piece)
            except TemporaryError as error:
                self._counters.retries += 1
                self.gone = isinstance(error, OutputGoneError)
                self._watch.failed(str(error))
                self._watch.pause(self._backoff.next_s(error.delay_s))

    def _divide(self, piece: Delivery) -> Sequence[Delivery]:
        pieces = halves(piece, self._encoder, self._compressor)
        if len(pieces) == 1:
            self._bury(piece, "the backend takes no request as large as this one record")
            return ()
        self._with_state(
            lambda: self._divisions.note_divided(self._name, piece), "that it is too large can't be written down"
        )
        self._counters.splits += 1
        return pieces

    def _sort_out(self, piece: Delivery, verdict: Verdict) -> Sequence[Delivery]:
        """Some records are to be sent again; a backend that wants all of them again took nothing: it is busy."""
        if len(verdict.retry) < piece.records:
            self._watch.answered()
        self._keep_dead(piece, verdict)
        self._counters.retries += 1
        self._watch.failed(f"the backend asked for {len(verdict.retry)} of {piece.records} records again")
        again = rest(piece, verdict.retry, self._encoder, self._compressor)
        self._watch.pause(self._backoff.next_s())
        return (again,)

    def _keep_dead(self, piece: Delivery, verdict: Verdict) -> None:
        if verdict.dead:
            records = records_of(piece, self._encoder)
            dead = sorted(verdict.dead)
            letters = [(records[index], reason) for index, reason in dead]
            self._keep(piece, letters, [index for index, _ in dead])

    def _bury(self, piece: Delivery, reason: str) -> None:
        letters = [(record, reason) for record in records_of(piece, self._encoder)]
        self._keep(piece, letters, range(len(letters)))

    def _keep(self, piece: Delivery, letters: list[tuple[bytes, str]], indexes: Sequence[int]) -> None:
        parts = parts_of_records(self._origin(), self._places(piece, indexes))
        self._with_state(
            lambda: self._dead_letters.put(output=self._name, delivery=piece, letters=letters, parts=parts),
            "dead letters can't be stored",
        )
        self._counters.dead_letters += len(letters)
        spans = ((end - start, part) for part in parts for _, start, end in part.ranges)
        raw_bytes = sum(size * part.refused // max(part.records, 1) for size, part in spans)
        self._refused = Refused(self._refused.records + len(letters), self._refused.raw_bytes + raw_bytes)
        # Without what differs between blocks: a backend that refuses all is told twice a minute, not twice a second.
        reason = letters[0][1].partition(" (")[0]
        log.warning("output %s: records were refused for good: %s (see `dead-letters ls`)", self._name, reason)

    def _with_state(self, step: Callable[[], None], trouble: str) -> None:
        """Do what no further step may go without, again and again until the disk takes it."""
        while True:
            try:
                step()
                break
            except StateError as error:
                self._watch.failed(f"{trouble}, delivery waits: {error}")
                self._watch.pause(self._backoff.next_s())

    def _places(self, piece: Delivery, indexes: Sequence[int]) -> Sequence[int]:
        """Where records of a piece stand in the delivery that it is a piece of."""
        named = indexes if piece.indexes is None else [piece.indexes[index] for index in indexes]
        if self._whole is None or self._whole.indexes is None:
            return named
        places = {index: place for place, index in enumerate(self._whole.indexes)}
        return [places[index] for index in named]
