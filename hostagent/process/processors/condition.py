"""The `if` of a processor: which records it is about.

Used by drop and keep. A condition asks for one field of each record; a constant is asked once per batch.
"""

from __future__ import annotations

import msgspec
import orjson

from hostagent.hookspecs import Pattern
from hostagent.model import Batch, Scalar
from hostagent.process.batches import columns_in, row_count
from hostagent.process.patterns import compile_pattern, search
from hostagent.process.text import columns_of


class ConditionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field that `matches` a pattern or `equals` a value; `negate` turns it round. A missing field is neither."""

    field: str
    matches: Pattern | None = None
    equals: Scalar = None
    negate: bool = False

    def __post_init__(self) -> None:
        if (self.matches is None) == (self.equals is None):
            raise ValueError("if: needs either `matches` or `equals`")
        if self.matches is not None:
            try:
                compile_pattern(self.matches)
            except ValueError as error:
                raise ValueError(f"matches: {error}") from None


class Condition:
    """A condition on one field."""

    def __init__(self, options: ConditionOptions) -> None:
        self._field = options.field
        self._pattern = compile_pattern(options.matches) if options.matches is not None else None
        self._equals = None if options.equals is None else text_of(options.equals)
        self._negate = options.negate

    def holds(self, batch: Batch) -> list[bool]:
        """Whether it holds, for each record of the batch."""
        if batch.records is not None:
            constant = batch.constants.get(self._field)
            return [self._test(text_of(record.get(self._field, constant))) for record in batch.records]
        if self._field in columns_in(batch):
            return [self._test(value) for value in columns_of(batch)[self._field]]
        return [self._test(text_of(batch.constants.get(self._field)))] * row_count(batch)

    def _test(self, value: bytes | None) -> bool:
        if value is None:
            return self._negate
        if self._pattern is not None:
            return (search(self._pattern, value) is None) == self._negate
        return (value != self._equals) == self._negate


def text_of(value: object) -> bytes | None:
    """A field's value as text: strings as they are, everything else as JSON; None for what is not there."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return orjson.dumps(value)
