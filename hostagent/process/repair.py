"""Records whose bytes are no UTF-8: replaced or carried as base64, never a reason to stop.

Runs after framing, when it is known which bytes make one record. A chunk that is plain ASCII or valid passes with one
look at the whole of it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from itertools import groupby
from typing import Literal

import msgspec

from hostagent.model import Batch
from hostagent.process.charset import is_utf8, repaired
from hostagent.process.text import cells_of, raw_rows_of

InvalidUtf8 = Literal["replace", "base64"]


def repair(batch: Batch, how: InvalidUtf8) -> tuple[list[Batch], int]:
    """Valid batches in this one's place, with the same records in the same order, and how many were not valid."""
    if batch.text is not None:
        if is_utf8(batch.text.data):
            return [batch], 0
    elif batch.cells is None or _is_valid(batch.cells):
        return [batch], 0
    names, rows = raw_rows_of(batch)
    invalid = len(rows) - sum(map(_is_valid, rows))
    escaped = batch.text is not None and batch.text.escaped
    if how == "base64" and "message" in names and not escaped:
        return _carried(batch, names, rows), invalid
    if batch.text is not None:
        text = msgspec.structs.replace(batch.text, data=repaired(batch.text.data))
        return [msgspec.structs.replace(batch, text=text)], invalid
    return [msgspec.structs.replace(batch, cells=list(map(repaired, cells_of(rows))))], invalid


def _is_valid(cells: Iterable[bytes]) -> bool:
    return is_utf8(b"\0".join(cells))  # a character must not be put together from two values


def _carried(batch: Batch, names: tuple[str, ...], rows: list[tuple[bytes, ...]]) -> list[Batch]:
    """Valid rows as they are, the others as records with `message_base64` in place of `message`, in runs."""
    message = names.index("message")
    carried = (*names[:message], "message_base64", *names[message + 1 :])
    batches = []
    for valid, run in groupby(rows, key=lambda row: is_utf8(row[message])):
        if valid:
            made, run_names = list(run), names
        else:
            made, run_names = [_encoded(row, message) for row in run], carried
        cells = list(map(repaired, cells_of(made)))
        batches.append(Batch(rows=len(made), constants=batch.constants, names=run_names, cells=cells))
    return batches


def _encoded(row: tuple[bytes, ...], at: int) -> tuple[bytes, ...]:
    return (*row[:at], base64.b64encode(row[at]), *row[at + 1 :])
