"""What a container's line says of itself never takes the place of what the runtime says of the container.

Runs behind the parser, whose fields come out of a line that a tenant wrote: a JSON log with a field `k8s_pod_namespace`
must not pass for another tenant's. Such a field is kept under another name. Lines of the host's own files are not
concerned, and processors come after this: both do as the operator says.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from msgspec.structs import replace

from hostagent.model import Batch
from hostagent.process.batches import columns_in

PREFIX = "parsed_"
# The tag that every container's records have, and no others.
CONTAINER = "container_id"


def beside_constants(batch: Batch) -> Batch:
    """The batch; in a container's records, every field that has a constant's name is now `parsed_<name>`."""
    constants = batch.constants.keys()
    if CONTAINER not in constants:
        return batch
    if batch.records is not None:
        if all(constants.isdisjoint(record) for record in batch.records):
            return batch
        return replace(batch, records=[_set_apart(record, constants) for record in batch.records])
    names = columns_in(batch)
    if constants.isdisjoint(names):
        return batch
    names = tuple(_free(name, {*names, *constants}) if name in constants else name for name in names)
    return replace(batch, names=names) if batch.text is None else replace(batch, text=replace(batch.text, names=names))


def _set_apart(record: dict[str, Any], constants: Iterable[str]) -> dict[str, Any]:
    taken = {*record, *constants}
    known = set(constants)
    return {_free(name, taken) if name in known else name: value for name, value in record.items()}


def _free(name: str, taken: Container[str]) -> str:
    while name in taken:
        name = PREFIX + name
    return name
