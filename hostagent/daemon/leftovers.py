"""What waits in spools of outputs that the configuration has no more: nobody delivers it, so `status` has to say it.

Looks once for each set of outputs, as such a spool does not change. It touches nothing: named again, the output
delivers what is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.state.spool.reading import list_blocks, spools
from hostagent.state.spool.spooled import directory_name

HINT = "name that output in the configuration again until its spool is empty"


class Leftovers:
    """The spools in one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._outputs: frozenset[str] | None = None
        self._found: list[Notice] = []

    def notices(self, outputs: Iterable[str]) -> list[Notice]:
        """One for each spool that is none of these outputs'."""
        names = frozenset(directory_name(output) for output in outputs)
        if names != self._outputs:
            self._found = [notice for path in self._others(names) for notice in _told(path)]
            self._outputs = names
        return self._found

    def _others(self, names: frozenset[str]) -> list[Path]:
        try:
            return [path for path in spools(self._data_dir) if path.name not in names]
        except StateError:  # the outputs that are there say why
            return []


def _told(directory: Path) -> list[Notice]:
    subject = f"spool {directory.name}"
    try:
        blocks = sum(1 for listed in list_blocks(directory) if listed.header is not None)
    except StateError as error:
        return [Notice(subject, str(error), HINT)]
    message = f"{blocks} blocks wait in it for an output that is not in the configuration any more"
    return [Notice(subject, message, HINT)] if blocks else []
