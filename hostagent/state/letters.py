"""What a dead letter says, and how anybody may read them: the frames of `dead-letters/OUTPUT/`.

DeadLetters writes them, the command line and the audit read them beside a running agent. Nothing here writes or locks.
"""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import zstandard

from hostagent.digest import blake2b
from hostagent.errors import StateError
from hostagent.model import Delivery
from hostagent.state.faults import look_fault
from hostagent.state.rows import InflightPart
from hostagent.state.segments.frames import Frame
from hostagent.state.segments.survey import Segment, open_for_reading, scan_segment, survey

DEAD_LETTERS_DIRECTORY = "dead-letters"
LETTER_FRAME = 2
GONE_FRAME = 3
_REASON_CHARACTERS = 500


class LetterPart(NamedTuple):
    """Where some of the records of a delivery came from: `refused` of the `records` that these ranges gave.

    `ranges` are (file, start, end).
    """

    source: str
    ranges: tuple[tuple[int, int, int], ...]
    records: int
    refused: int


class LetterHeader(msgspec.Struct, frozen=True, gc=False):
    """What one put() stored: records of one delivery, in order; `why[i]` is the place of record i's reason.

    `parts` say where they came from, in the same order.
    """

    output: str
    at_ns: int
    observed_ns: int
    block: str
    delivery: str
    content_type: str
    sizes: tuple[int, ...]
    reasons: tuple[str, ...]
    why: tuple[int, ...]
    key: bytes
    parts: tuple[LetterPart, ...] = ()


class DeadLetter(NamedTuple):
    """A listed entry; `id` names it to cat and requeue. `bytes` is its size on disk."""

    id: str
    header: LetterHeader
    bytes: int


def again_id(header: LetterHeader) -> str:
    """The id under which an entry is sent again: always the same one for the same records."""
    return f"{header.block.partition('.q')[0]}.q{header.key.hex()}"


def whole_parts(parts: Iterable[InflightPart]) -> list[LetterPart]:
    """Where all the records of a block came from."""
    return [
        LetterPart(part.source, tuple(range_[:3] for range_ in part.ranges), part.records, part.records)
        for part in parts
    ]


def parts_of_records(parts: Sequence[LetterPart], indexes: Iterable[int]) -> tuple[LetterPart, ...]:
    """Which parts some records of a delivery came from; `parts` say of all its records where they came from."""
    ends = list(itertools.accumulate(part.refused for part in parts))
    counts: dict[int, int] = {}
    for index in indexes:
        place = bisect.bisect_right(ends, index)
        if place < len(parts):
            counts[place] = counts.get(place, 0) + 1
    return tuple(parts[place]._replace(refused=count) for place, count in sorted(counts.items()))


encode_header = msgspec.msgpack.Encoder().encode
decode_header = msgspec.msgpack.Decoder(LetterHeader).decode
encode_gone = msgspec.msgpack.Encoder().encode
decode_gone = msgspec.msgpack.Decoder(list[str]).decode


def letter_boxes(data_dir: Path) -> list[Path]:
    """The directories of all outputs that ever had dead letters."""
    parent = data_dir / DEAD_LETTERS_DIRECTORY
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise look_fault(parent, error) from error


def read_entries(directory: Path) -> Iterator[DeadLetter]:
    """The entries of an output's directory, oldest first, for a command beside a running agent."""
    if not directory.exists():
        return
    segments = survey(directory).segments
    gone: set[str] = set()
    for segment in segments:
        for found in scan_segment(segment, 0, segment.size):
            if isinstance(found, Frame) and found.kind == GONE_FRAME:
                gone.update(decode_gone(found.header))
    for segment in segments:
        for letter in letters_of(segment):
            if letter.id not in gone:
                yield letter


def read_records(directory: Path, id_: str) -> list[bytes]:
    """The records of one entry; StateError when there is no such entry, or its bytes are damaged."""
    number, _, offset = id_.partition("-")
    for segment in survey(directory).segments if directory.exists() else ():
        if number == str(segment.number) and offset.isdigit():
            for found in scan_segment(segment, int(offset), segment.size, payloads=True):
                if isinstance(found, Frame) and found.offset == int(offset) and found.kind == LETTER_FRAME:
                    return _decode_payload(segment, found)
                break
    raise StateError(f"{directory}: no sound dead letter {id_!r}; `hostagent dead-letters ls` lists them")


def letter_at(segments: Iterable[Segment], id_: str) -> DeadLetter | None:
    """An entry by its id, without looking at any other; None when it is not there."""
    number, _, offset = id_.partition("-")
    for segment in segments:
        if number == str(segment.number) and offset.isdecimal():
            found = next(scan_segment(segment, int(offset), segment.size), None)
            if isinstance(found, Frame) and found.kind == LETTER_FRAME:
                return DeadLetter(id_, decode_header(found.header), found.payload_bytes)
    return None


def letters_of(segment: Segment) -> Iterator[DeadLetter]:
    """The entries of a segment, in order, those included that are gone."""
    for found in scan_segment(segment, 0, segment.size):
        if isinstance(found, Frame) and found.kind == LETTER_FRAME:
            yield DeadLetter(f"{segment.number}-{found.offset}", decode_header(found.header), found.payload_bytes)


def _decode_payload(segment: Segment, frame: Frame) -> list[bytes]:
    fd = open_for_reading(segment.path)
    try:
        packed = os.pread(fd, frame.payload_bytes, frame.payload_offset)
    finally:
        os.close(fd)
    joined = zstandard.ZstdDecompressor().decompress(packed)
    records = []
    start = 0
    for size in decode_header(frame.header).sizes:
        records.append(joined[start : start + size])
        start += size
    return records


def encode_letter(
    output: str, at_ns: int, delivery: Delivery, letters: Sequence[tuple[bytes, str]], parts: Sequence[LetterPart]
) -> tuple[LetterHeader, bytes]:
    """The header and the payload of an entry's frame."""
    joined = b"".join(record for record, _ in letters)
    sizes = tuple(len(record) for record, _ in letters)
    places: dict[str, int] = {}
    # A reason quotes the backend, which may say anything.
    reasons = (reason[:_REASON_CHARACTERS].encode("utf-8", "replace").decode() for _, reason in letters)
    why = tuple(places.setdefault(reason, len(places)) for reason in reasons)
    key = blake2b(repr((delivery.id, sizes)).encode() + joined, digest_size=8).digest()
    block = delivery.block or delivery.id
    header = LetterHeader(
        output,
        at_ns,
        delivery.observed_ns,
        block,
        delivery.id,
        delivery.content_type,
        sizes,
        tuple(places),
        why,
        key,
        tuple(parts),
    )
    return header, zstandard.ZstdCompressor(level=1).compress(joined)
