"""From a cursor to the lanes: fetch bytes, run the chain, encode, add the part.

This is the path of every byte. It makes a handful of Python objects per chunk and none per line, processes once for all
lanes that stand at the same offset, and encodes once for all whose encoders agree. It decides nothing about when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from hostagent.model import Part, Processed, Range, Scalar
from hostagent.tail.ports import Chain, Lane
from hostagent.tail.tailer import Cursor, Fetched, TailedFile


class Counters(msgspec.Struct):
    """What was read for one source since start; written by the reader's thread alone."""

    raw_bytes: int = 0
    records: int = 0
    invalid_utf8: int = 0
    unparsed: int = 0
    dropped: int = 0


class Step(NamedTuple):
    """One read: bytes consumed, what was fetched and not consumed, whether the file may hold more right now."""

    consumed: int
    rest: bytes
    more: bool


class Feed:
    """Moves cursors forward, one chunk at a time."""

    def __init__(self, chunk_bytes: int) -> None:
        self.chunk_bytes = chunk_bytes
        self.taken_bytes = 0
        self.counters: dict[str, Counters] = {}

    def step(self, tailed: TailedFile, cursor: Cursor, *, final: bool = False) -> Step:
        """Read one chunk at the cursor and deliver its whole records; with `final` and at the end, everything.

        A record that doesn't fit is read again with more room, up to what the chain says it can take. Raises
        RewrittenError and OSError, with nothing moved.
        """
        size = self.chunk_bytes
        limit = size + tailed.origin.chain.reach_bytes
        while True:
            fetched = tailed.fetch(cursor, size)
            full = len(fetched.data) == size
            whole = (final and not full) or size > limit
            consumed = self.consume(tailed, cursor, fetched, final=whole)
            if consumed or not full or whole:
                return Step(consumed, fetched.data[consumed:] if not full else b"", full)
            size *= 2

    def consume(self, tailed: TailedFile, cursor: Cursor, fetched: Fetched, *, final: bool) -> int:
        """Process what was fetched and move the cursor past it; returns the bytes consumed."""
        if not fetched.data:
            return 0
        processed = tailed.origin.chain.process(fetched.data, tailed.record_constants(), final=final)
        if processed.consumed:
            start, anchor = cursor.offset, cursor.anchor
            tailed.advance(cursor, fetched, processed.consumed)
            ranges = (Range(tailed.row, start, cursor.offset, cursor.anchor),)
            try:
                self.deliver(tailed, cursor.lanes, ranges, processed)
            except BaseException:
                cursor.offset, cursor.anchor = start, anchor
                raise
        return processed.consumed

    def deliver(
        self, tailed: TailedFile, lanes: Sequence[Lane], ranges: tuple[Range, ...], processed: Processed
    ) -> None:
        """Encode for each lane and add the part. A part without records still moves the position when it is acked.

        Everything is encoded before anything is added: an encoder that fails leaves no lane ahead of the others.
        """
        encoded: dict[tuple[str, int], tuple[bytes, int]] = {}
        parts = []
        records = 0
        for lane in lanes:
            observed_ns = lane.observed_ns()
            key = (lane.encoder_key, observed_ns if lane.encoder.timed else 0)
            if key not in encoded:
                encoded[key] = encode(lane, processed, observed_ns)
            payload, records = encoded[key]
            part = Part(
                ranges=ranges,
                chain=tailed.signature,
                source=tailed.origin.target.source,
                payload=payload,
                records=records,
                raw_bytes=processed.consumed,
            )
            parts.append(part)
        for lane, part in zip(lanes, parts, strict=True):
            lane.add(part)
        self._count(tailed.origin.target.source, processed, records)

    def _count(self, source: str, processed: Processed, records: int) -> None:
        counters = self.counters.get(source)
        if counters is None:
            counters = self.counters[source] = Counters()
        counters.raw_bytes += processed.consumed
        self.taken_bytes += processed.consumed
        counters.records += records
        counters.invalid_utf8 += processed.invalid_utf8
        counters.unparsed += processed.unparsed
        counters.dropped += processed.dropped


def encode(lane: Lane, processed: Processed, observed_ns: int) -> tuple[bytes, int]:
    """The payload of one part and how many records it holds. Payloads of one encoder may be laid end to end."""
    if len(processed.batches) == 1:
        return lane.encoder.encode(processed.batches[0], observed_ns)
    encoded = [lane.encoder.encode(batch, observed_ns) for batch in processed.batches]
    return b"".join(one.payload for one in encoded), sum(one.records for one in encoded)


def recut(
    chain: Chain, lane: Lane, constants: Mapping[str, Scalar], data: bytes, observed_ns: int
) -> tuple[bytes, int]:
    """The payload that exactly these bytes gave before: ranges end where records end, so everything is final."""
    processed = chain.process(data, constants, final=True)
    return encode(lane, processed, observed_ns)
