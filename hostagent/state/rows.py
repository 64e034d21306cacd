"""What the checkpoint database and the spool hold about files and blocks, as values.

The tail stage gets FileRows at start and hands new ones back; the deliver stage gets InflightBlocks and the same parts
again from the spool. Nothing here opens a file: the modules beside it turn these into rows and frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from hostagent.model import Block, FileId, Fingerprint, Range, Scalar


class Position(NamedTuple):
    """How far an output has come in a file, and the digest of the bytes before that offset."""

    offset: int
    anchor: bytes


class FileRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One generation of one file. `id` is 0 until the row has been added.

    `tags` and strings are shared between rows that have the same ones: never change them in place.
    """

    id: int = 0
    identity: FileId
    generation: int = 0
    fingerprint: Fingerprint
    path: str
    target: str
    source: str
    tags: Mapping[str, Scalar] = {}
    storage: str = "file"
    seen_ns: int = 0
    gone_ns: int | None = None
    positions: Mapping[str, Position] = {}


class InflightPart(NamedTuple):
    """A part of a block without its payload: enough to cut it again from the files."""

    ranges: tuple[Range, ...]
    chain: str
    source: str
    records: int


class InflightBlock(msgspec.Struct, frozen=True):
    """A block that was cut and never acknowledged."""

    id: str
    output: str
    observed_ns: int
    parts: tuple[InflightPart, ...]


def parts_of(block: Block) -> tuple[InflightPart, ...]:
    """The parts of a block without their payloads."""
    return tuple(InflightPart(part.ranges, part.chain, part.source, part.records) for part in block.parts)
