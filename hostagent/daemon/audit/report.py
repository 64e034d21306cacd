"""What the audit answers: the sums by file and by source, and what stands in the way of them.

The values that `hostagent audit` shows and its `--json` prints. They decide nothing and read nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hostagent.state.reckoning import Account


class FileAudit(msgspec.Struct, frozen=True, kw_only=True):
    """One file generation and one output."""

    path: str
    source: str
    output: str
    file: int
    generation: int
    gone: bool
    position: int
    account: Account


class SourceAudit(msgspec.Struct, frozen=True, kw_only=True):
    """All files of one source for one output, those that are forgotten included.

    `reasons` are the ledger's bytes by reason, `unsized_losses` how many losses have no known size.
    """

    source: str
    output: str
    files: int
    account: Account
    reasons: Mapping[str, int]
    unsized_losses: int


class LossAudit(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the loss ledger; `end` is None where nobody can know how much it was, `output` empty for all."""

    at_ns: int
    source: str
    output: str
    reason: str
    path: str
    start: int
    end: int | None


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the way of the sum; `open` when bytes of unknown number are not accounted for because of it."""

    subject: str
    message: str
    hint: str
    open: bool


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer. It balances when nothing is unaccounted and no trouble is open."""

    balanced: bool
    running: bool
    unaccounted: int
    sources: tuple[SourceAudit, ...]
    files: tuple[FileAudit, ...]
    losses: tuple[LossAudit, ...]
    troubles: tuple[Trouble, ...]
