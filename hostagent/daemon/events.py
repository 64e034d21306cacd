"""What the agent's log says beside its stages: damage that was found, disks that refuse, new lines of the loss ledger.

The main thread looks now and then and tells what is new since it last looked, for `status` shows only what is so now,
and who reads the log afterwards was not there. It changes nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping

from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.database.ledger import LossReason

log = logging.getLogger(__name__)

_NUMBER = re.compile(r"\d+")
# Losses that an option bounds.
_OPTIONS: Mapping[str, str] = {
    LossReason.DELETED_OVER_BUDGET: "limits.max_deleted_bytes",
    LossReason.SPOOL_DROPPED: "spool.max_bytes",
    LossReason.DEAD_LETTER_DROPPED: "dead_letters.max_bytes",
}


class Events:
    """`notices` are those that no stage logs itself."""

    def __init__(self, checkpoint: Checkpoint, notices: Callable[[], Iterable[Notice]]) -> None:
        self._checkpoint = checkpoint
        self._notices = notices
        self._told: set[tuple[str, str]] = set()
        self._lost: dict[tuple[str, str], tuple[int, int]] = {}
        self._lost = self._losses()

    def look(self) -> None:
        """Tell what is new."""
        now = set()
        for notice in self._notices():
            key = (notice.subject, _NUMBER.sub("#", notice.message))  # a count that grows is no other event
            if key not in self._told and key not in now:
                log.warning("%s: %s%s", notice.subject, notice.message, f" ({notice.hint})" if notice.hint else "")
            now.add(key)
        self._told = now
        lost = self._losses()
        for pair, (losses, bytes_) in lost.items():
            before, bytes_before = self._lost.get(pair, (0, 0))
            if losses > before:
                option = _OPTIONS.get(pair[1])
                advice = f"; raise {option}" if option else ""
                text = "source %s: %d more in the loss ledger, %d bytes as far as known: %s (see `audit --losses`%s)"
                log.warning(text, pair[0] or "-", losses - before, bytes_ - bytes_before, pair[1], advice)
        self._lost = lost

    def _losses(self) -> dict[tuple[str, str], tuple[int, int]]:
        """The number of losses and of their bytes by source and reason."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        try:
            totals = self._checkpoint.loss_totals()
        except StateError:
            return self._lost
        for total in totals:
            losses, bytes_ = found.get((total.source, total.reason), (0, 0))
            found[total.source, total.reason] = (losses + total.losses, bytes_ + total.bytes)
        return found
