"""What stages do to a batch whatever form its rows are in: count, select, take columns out, give them other names.

Serves the chain and the processors. Rows of a Text are kept as they stand in the buffer wherever that is possible, and
nothing changes a batch in place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import compress
from typing import Any

import msgspec

from hostagent.model import Batch, Scalar
from hostagent.process.text import cells_of, columns_of, rows_in


def row_count(batch: Batch) -> int:
    """How many records a batch holds."""
    if batch.text is not None:
        return batch.rows if batch.rows >= 0 else batch.text.data.count(batch.text.seps[-1])
    return len(batch.cells) // len(batch.names) if batch.cells else len(batch.records or [])


def columns_in(batch: Batch) -> tuple[str, ...]:
    """The names of a batch's columns; none for materialised records, of which each has its own."""
    return batch.text.names if batch.text is not None else batch.names


def select(batch: Batch, wanted: Iterable[bool]) -> Batch | None:
    """The rows for which `wanted` is true; None when there are none."""
    if batch.text is not None:
        last = batch.text.seps[-1]
        kept = list(compress(batch.text.data[: -len(last)].split(last), wanted))
        if not kept:
            return None
        text = msgspec.structs.replace(batch.text, data=last.join([*kept, b""]))
        return msgspec.structs.replace(batch, rows=len(kept), text=text)
    if batch.cells is not None:
        rows = list(compress(rows_in(batch.cells, len(batch.names)), wanted))
        return msgspec.structs.replace(batch, rows=len(rows), cells=cells_of(rows)) if rows else None
    records = list(compress(batch.records or [], wanted))
    return msgspec.structs.replace(batch, rows=len(records), records=records) if records else None


def table(columns: Mapping[str, list[bytes]], constants: Mapping[str, Scalar], rows: int) -> Batch:
    """A batch of these columns; with none at all, records that have only the constants."""
    if not columns:
        return Batch(rows=rows, constants=constants, records=[{} for _ in range(rows)])
    cells = cells_of(zip(*columns.values(), strict=True))
    return Batch(rows=rows, constants=constants, names=tuple(columns), cells=cells)


def without(batch: Batch, names: Collection[str]) -> Batch:
    """The batch without the fields of these names."""
    constants = {name: value for name, value in batch.constants.items() if name not in names}
    if batch.records is not None:
        records = [{name: value for name, value in one.items() if name not in names} for one in batch.records]
        return Batch(rows=len(records), constants=constants, records=records)
    if not any(name in names for name in columns_in(batch)):
        return msgspec.structs.replace(batch, constants=constants)
    columns = {name: values for name, values in columns_of(batch).items() if name not in names}
    return table(columns, constants, row_count(batch))


def renamed(batch: Batch, names: Mapping[str, str]) -> Batch:
    """The batch with fields under other names; a column that has such a name gives way."""
    moving = {new for old, new in names.items() if old in columns_in(batch) and new not in names}
    batch = without(batch, moving) if moving else batch
    constants = {names.get(name, name): value for name, value in batch.constants.items()}
    if batch.records is not None:
        records = [_renamed_record(one, names) for one in batch.records]
        return Batch(rows=len(records), constants=constants, records=records)
    columns = tuple(names.get(name, name) for name in columns_in(batch))
    if batch.text is not None:
        return msgspec.structs.replace(
            batch, constants=constants, text=msgspec.structs.replace(batch.text, names=columns)
        )
    return msgspec.structs.replace(batch, constants=constants, names=columns)


def _renamed_record(record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    moving = {new for old, new in names.items() if old in record and new not in names}
    return {names.get(name, name): value for name, value in record.items() if name not in moving}
