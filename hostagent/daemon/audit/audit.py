"""The audit: for every file and output, where each byte that is known to exist is, and whether any can't be found.

Joins the checkpoint's books, the spool's headers, the dead letters and the files on disk, all read from outside the
agent and without holding it up. While an agent runs the four are not read in one moment, so an imbalance is only
believed when it stays. What is compared with what stands in docs/reliability.md.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hostagent.clock import Clock
from hostagent.daemon.audit.beside import Beside, missing_blocks, read_beside
from hostagent.daemon.audit.report import AuditReport, FileAudit, LossAudit, Trouble
from hostagent.daemon.audit.sources import source_audits
from hostagent.daemon.audit.standing import Standing
from hostagent.hookspecs import Tailer
from hostagent.model import Loss
from hostagent.observe.report import FileReport
from hostagent.state.books import Books, read_books
from hostagent.state.database.positions import Progress
from hostagent.state.lock import holder_of
from hostagent.state.reckoning import Account, Span, reckon
from hostagent.state.rows import FileRow

TRIES = 6
PAUSE_S = 0.5

Ask = Callable[[], Iterable[FileReport] | None]
"""The files a running agent has, None when none answers."""

_DEAF = Trouble(
    subject="agent",
    message="runs and does not answer: deleted files that it holds open are not seen",
    hint="wait until it has started; see its log; use sudo, or name its socket with --api",
    open=False,
)


def audit(data_dir: Path, tailers: Mapping[str, Tailer], ask: Ask, clock: Clock) -> AuditReport:
    """Do the sum; again a few times if it does not come out while an agent is at work."""
    never = threading.Event()
    report = _audit(data_dir, tailers, ask)
    for _ in range(TRIES - 1):
        if report.balanced or not report.running:
            break
        clock.wait(never, PAUSE_S)
        report = _audit(data_dir, tailers, ask)
    return report


def _audit(data_dir: Path, tailers: Mapping[str, Tailer], ask: Ask) -> AuditReport:
    # The spool first: a block that moves on meanwhile then counts as acked and spooled, never as neither.
    beside = read_beside(data_dir)
    books = read_books(data_dir)
    answers: list[list[FileReport] | None] = []

    def ask_once() -> list[FileReport] | None:
        if not answers:
            found = ask()
            answers.append(None if found is None else list(found))
        return answers[0]

    standing = Standing(books.files, tailers, ask_once)
    answers_now = ask_once() is not None
    running = answers_now or holder_of(data_dir) is not None
    files, troubles = _files(books, beside, standing, running=answers_now)
    sources = source_audits(books, beside, files)
    troubles = [*beside.troubles, *missing_blocks(books.spooled, beside), *troubles]
    if running and not answers_now:
        troubles.append(_DEAF)
    unaccounted = sum(one.account.unaccounted for one in sources)
    return AuditReport(
        balanced=not unaccounted and not any(trouble.open for trouble in troubles),
        running=running,
        unaccounted=unaccounted,
        sources=tuple(sources),
        files=tuple(files),
        losses=tuple(_loss(one) for one in books.losses),
        troubles=tuple(troubles),
    )


def _files(books: Books, beside: Beside, standing: Standing, *, running: bool) -> tuple[list[FileAudit], list[Trouble]]:
    progress: dict[int, list[Progress]] = defaultdict(list)
    for one in books.progress:
        progress[one.file].append(one)
    losses: dict[int, list[tuple[str, int, int | None]]] = defaultdict(list)
    for loss in books.losses:
        losses[loss.file].append((loss.output, loss.start, loss.end))
    reached: dict[int, int] = defaultdict(int)
    begun: dict[tuple[int, str], list[Span]] = defaultdict(list)
    for range_ in books.inflight:
        reached[range_.file] = max(reached[range_.file], range_.end)
        begun[range_.file, range_.output].append((range_.start, range_.end))
    for (file, _), spans in beside.spans.items():
        reached[file] = max(reached[file], *(end for _, end in spans))
    found: list[FileAudit] = []
    troubles: list[Trouble] = []
    for row in books.files:
        readable = standing.readable_bytes(row)
        mine = progress.get(row.id) or [Progress(row.id, "-", 0, 0, 0, 1)]
        known = [one.offset for one in mine] + [end for _, _, end in losses[row.id] if end is not None]
        exists = max([readable or 0, reached[row.id], *known])
        if readable is None and row.gone_ns is None and not losses[row.id]:
            troubles.append(_vanished(row, running))
        for one in mine:
            lost = [(start, end) for output, start, end in losses[row.id] if output in {"", one.output}]
            account = reckon(
                one,
                exists=exists,
                readable=readable or 0,
                losses=lost,
                spooled=beside.spans.get((row.id, one.output), ()),
                refused=beside.refused.get((row.id, one.output), ()),
                begun=begun.get((row.id, one.output), ()),
            )
            found.append(_file(row, one, account))
    return found, troubles


def _file(row: FileRow, progress: Progress, account: Account) -> FileAudit:
    return FileAudit(
        path=_shown(row.path),
        source=row.source,
        output=progress.output,
        file=row.id,
        generation=row.generation,
        gone=row.gone_ns is not None,
        position=progress.offset,
        account=account,
    )


def _loss(loss: Loss) -> LossAudit:
    return LossAudit(
        at_ns=loss.at_ns,
        source=loss.source,
        output=loss.output,
        reason=loss.reason,
        path=_shown(loss.path),
        start=loss.start,
        end=loss.end,
    )


def _shown(path: str) -> str:
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _vanished(row: FileRow, running: bool) -> Trouble:
    """A file that is neither where it was nor with the agent: nobody knows what was written to it at the end."""
    hint = "the next start looks for it, and writes into the ledger what was lost"
    if running:
        hint = (
            "its source or container may not be there any more; what was written after its last position is not known"
        )
    return Trouble(subject=row.path, message="is gone, and was not read to a known end", hint=hint, open=running)
