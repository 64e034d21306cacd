"""The `drop` and `keep` processors: leave records out.

Lines of a raw chunk whose message decides are taken out by one pass over the buffer; any other batch is asked record by
record, and what stays keeps its form.
"""

from __future__ import annotations

import msgspec

from hostagent.model import Batch
from hostagent.process.batches import select
from hostagent.process.confine import confine
from hostagent.process.patterns import Compiled, compile_pattern, replace
from hostagent.process.processors.condition import Condition, ConditionOptions
from hostagent.process.text import is_lines


class DropOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Records for which the condition `if` holds."""

    condition: ConditionOptions = msgspec.field(name="if")


class Drop:
    """Drops the records for which the condition holds; with `keep`, all others."""

    def __init__(self, options: DropOptions, *, keep: bool) -> None:
        self._condition = Condition(options.condition)
        self._keep = keep
        self._unwanted_lines = _unwanted_lines(options.condition, keep=keep)

    def process(self, batch: Batch) -> list[Batch]:
        text = batch.text
        if text is not None and is_lines(text) and self._unwanted_lines is not None:
            left = replace(self._unwanted_lines, text.data, b"")
            if left == text.data:
                return [batch]
            return (
                [msgspec.structs.replace(batch, rows=-1, text=msgspec.structs.replace(text, data=left))] if left else []
            )
        holds = self._condition.holds(batch)
        if all(held == self._keep for held in holds):
            return [batch]
        kept = select(batch, [held == self._keep for held in holds])
        return [kept] if kept is not None else []


def _unwanted_lines(condition: ConditionOptions, *, keep: bool) -> Compiled | None:
    """A pattern for whole lines that are to go; None when the message alone doesn't decide."""
    confined = confine(condition.matches) if condition.field == "message" and condition.matches is not None else None
    if confined is None:
        return None
    look = "!" if keep != condition.negate else "="
    return compile_pattern(rf"^(?{look}{confined.each_line}).*\n", confined.flags)
