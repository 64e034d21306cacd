"""The parts of a block as a column holds them: which ranges of which files, and what was made of them.

Shared by the tables of blocks. A value that makes no sense is no parts: a flipped bit must not keep the agent down.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hostagent.state.rows import InflightPart

pack_parts = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[InflightPart, ...]).decode


def parts_in(packed: bytes) -> tuple[InflightPart, ...]:
    """No parts where they are damaged: their bytes lie behind the positions and are read again."""
    try:
        return _decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
        return ()


def any_ranges(parts: Iterable[InflightPart]) -> bool:
    """Whether anything is left of a block."""
    return any(part.ranges for part in parts)
