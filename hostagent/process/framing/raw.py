"""The raw framing: one line is one record, whatever is in it.

First stage of a chain for plain log files. On the common road a chunk becomes one Text without being copied; a carriage
return stays part of the message. It also carries files in encodings other than UTF-8: the lines are cut in the file's
own bytes, then recoded, so offsets stay those of the file.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hostagent.hookspecs import Framed
from hostagent.model import Batch, Scalar, Text
from hostagent.process.charset import Charset, Utf8
from hostagent.process.lines import Stretch, cut

NEWLINE = b"\n"


class RawOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The raw framing has no options."""


class RawFraming:
    """Lines of a file, in any of its encodings."""

    def __init__(self, charset: Charset | None = None) -> None:
        self._charset = charset or Utf8()

    def frame(self, data: bytes, constants: Mapping[str, Scalar], *, final: bool, limit_bytes: int) -> Framed:
        stretches = cut(data, self._charset, final=final, limit_bytes=limit_bytes)
        if not stretches:
            return Framed([], 0)
        batches = [
            line_batch(self._charset.decode(data[start:end]), partial_mark(constants) if piece else constants)
            for start, end, piece in stretches
        ]
        starts = None
        if not self._charset.verbatim or any(stretch.piece for stretch in stretches):
            starts = [start for stretch in stretches for start in self._starts(data, stretch)]
        return Framed(batches, stretches[-1].end, starts)

    def _starts(self, data: bytes, stretch: Stretch) -> list[int]:
        starts = [stretch.start]
        while not stretch.piece:
            start = self._charset.first_line_end(data, starts[-1], stretch.end)
            if not start or start == stretch.end:
                break
            starts.append(start)
        return starts


def line_batch(lines: bytes, constants: Mapping[str, Scalar]) -> Batch:
    """Lines as one batch; the last one may lack its newline."""
    if not lines.endswith(NEWLINE):
        lines += NEWLINE
    return Batch(rows=-1, constants=constants, text=Text(("message",), lines, (NEWLINE,)))


def partial_mark(constants: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Constants of a record that was cut before its end."""
    return {name: value for name, value in constants.items() if name != "partial"} | {"partial": True}
