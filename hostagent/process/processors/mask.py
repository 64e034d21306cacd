"""The `mask` processor: writes something else over what a pattern finds in a field.

For card numbers, tokens and the like. In a raw chunk it is one pass over the buffer; any other batch is gone through
value by value.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hostagent.hookspecs import Pattern
from hostagent.model import Batch
from hostagent.process.batches import columns_in, row_count, table
from hostagent.process.confine import confine
from hostagent.process.patterns import compile_pattern, replace
from hostagent.process.text import columns_of, is_lines


class MaskOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything `pattern` finds in `field` becomes `with`, taken literally."""

    pattern: Pattern
    with_: str = msgspec.field(name="with", default="****")
    field: str = "message"

    def __post_init__(self) -> None:
        try:
            compile_pattern(self.pattern)
        except ValueError as error:
            raise ValueError(f"pattern: {error}") from None


class Mask:
    """Masks one field."""

    def __init__(self, options: MaskOptions) -> None:
        self._field = options.field
        self._with = options.with_.encode()
        self._pattern = compile_pattern(options.pattern)
        confined = confine(options.pattern)
        one_line = b"\n" not in self._with
        self._anywhere = compile_pattern(confined.anywhere, confined.flags) if confined and one_line else None

    def process(self, batch: Batch) -> list[Batch]:
        text = batch.text
        if self._field == "message" and text is not None and is_lines(text) and self._anywhere is not None:
            masked = replace(self._anywhere, text.data[:-1], self._with) + b"\n"
            return [msgspec.structs.replace(batch, text=msgspec.structs.replace(text, data=masked))]
        if batch.records is not None:
            records = [self._masked_record(record) for record in batch.records]
            return [msgspec.structs.replace(self._masked_constant(batch), records=records)]
        if self._field not in columns_in(batch):
            return [self._masked_constant(batch)]
        columns = columns_of(batch)
        columns[self._field] = [replace(self._pattern, value, self._with) for value in columns[self._field]]
        return [table(columns, batch.constants, row_count(batch))]

    def _masked_constant(self, batch: Batch) -> Batch:
        value = batch.constants.get(self._field)
        if not isinstance(value, str):
            return batch
        constants = {**batch.constants, self._field: self._masked(value)}
        return msgspec.structs.replace(batch, constants=constants)

    def _masked_record(self, record: dict[str, Any]) -> dict[str, Any]:
        value = record.get(self._field)
        return {**record, self._field: self._masked(value)} if isinstance(value, str) else record

    def _masked(self, value: str) -> str:
        encoded = value.encode("utf-8", "surrogateescape")
        return replace(self._pattern, encoded, self._with).decode("utf-8", "surrogateescape")
