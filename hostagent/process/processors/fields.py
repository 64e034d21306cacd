"""The processors `add_fields`, `remove_fields` and `rename`: which fields a record has.

Constants and columns change for a whole batch at once; only materialised records are gone through one by one.
"""

from __future__ import annotations

import msgspec

from hostagent.model import Batch, Scalar
from hostagent.process.batches import renamed, without


class AddFieldsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`fields`: values by name. A field of the same name is replaced."""

    fields: dict[str, Scalar]


class RemoveFieldsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`fields`: names."""

    fields: tuple[str, ...]


class RenameOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`fields`: new names by old name. A field that has the new name already is replaced."""

    fields: dict[str, str]

    def __post_init__(self) -> None:
        if len(set(self.fields.values())) < len(self.fields):
            raise ValueError("fields: two fields can't get the same name")


class AddFields:
    """Adds the same fields to every record."""

    def __init__(self, options: AddFieldsOptions) -> None:
        self._fields = options.fields

    def process(self, batch: Batch) -> list[Batch]:
        batch = without(batch, self._fields)
        return [msgspec.structs.replace(batch, constants={**batch.constants, **self._fields})]


class RemoveFields:
    """Takes fields out of every record."""

    def __init__(self, options: RemoveFieldsOptions) -> None:
        self._names = frozenset(options.fields)

    def process(self, batch: Batch) -> list[Batch]:
        return [without(batch, self._names)]


class Rename:
    """Gives fields other names."""

    def __init__(self, options: RenameOptions) -> None:
        self._names = options.fields

    def process(self, batch: Batch) -> list[Batch]:
        return [renamed(batch, self._names)]
