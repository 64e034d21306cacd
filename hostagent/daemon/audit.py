"""The audit: for every file and output, where each byte that is known to exist is, and whether any can't be found.

Joins the checkpoint's books, the spool's headers, the dead letters and the files on disk, all read from outside the
agent and without holding it up. While an agent runs the four are not read in one moment, so an imbalance is only
believed when it stays. What is compared with what stands in docs/reliability.md.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from hostagent.clock import Clock
from hostagent.daemon.standing import Standing
from hostagent.hookspecs import Tailer
from hostagent.observe.report import FileReport
from hostagent.state.books import Books, Held, read_books
from hostagent.state.database.positions import Progress
from hostagent.state.letters import letter_boxes, read_entries
from hostagent.state.lock import holder_of
from hostagent.state.reckoning import Account, Span, reckon
from hostagent.state.rows import FileRow
from hostagent.state.spool.reading import EVERYTHING, Bounds, bounds_of, list_blocks, spools, strange_in
from hostagent.state.spool.spooled import Place, directory_name

TRIES = 6
PAUSE_S = 0.5

Ask = Callable[[], Iterable[FileReport] | None]


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
    troubles: tuple[Trouble, ...]


_DEAF = Trouble(
    subject="agent",
    message="runs and does not answer: deleted files that it holds open are not seen",
    hint="wait until it has started; see its log; use sudo, or name its socket with --api",
    open=False,
)


class _Seen(NamedTuple):
    """Where the blocks of one output's spool begin, and between which places there must be one for every row."""

    blocks: set[Place]
    bounds: Bounds


class _Kept(NamedTuple):
    """What lies beside the database: by file and output spooled ranges, bytes in dead letters, their sources.

    `seen` are the spools by the names of their directories.
    """

    spans: dict[tuple[int, str], list[Span]]
    refused: dict[tuple[int, str], list[tuple[Span, int]]]
    seen: dict[str, _Seen]
    sources: dict[tuple[int, str], str]
    troubles: list[Trouble]


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
    kept = _Kept(defaultdict(list), defaultdict(list), {}, {}, [])
    _spooled(data_dir, kept)
    _refused(data_dir, kept)
    books = read_books(data_dir)
    kept.troubles.extend(_missing_blocks(books.spooled, kept.seen))
    answers: list[list[FileReport] | None] = []

    def ask_once() -> list[FileReport] | None:
        if not answers:
            found = ask()
            answers.append(None if found is None else list(found))
        return answers[0]

    standing = Standing(books.files, tailers, ask_once)
    answers_now = ask_once() is not None
    running = answers_now or holder_of(data_dir) is not None
    files, troubles = _files(books, kept, standing, running=answers_now)
    sources = _sources(books, kept, files)
    troubles = [*kept.troubles, *troubles]
    if running and not answers_now:
        troubles.append(_DEAF)
    unaccounted = sum(one.account.unaccounted for one in sources)
    return AuditReport(
        balanced=not unaccounted and not any(trouble.open for trouble in troubles),
        running=running,
        unaccounted=unaccounted,
        sources=tuple(sources),
        files=tuple(files),
        troubles=tuple(troubles),
    )


def _spooled(data_dir: Path, found: _Kept) -> None:
    for directory in spools(data_dir):
        synced = bounds_of(directory).synced
        blocks = set()
        for listed in list_blocks(directory):
            blocks.add(listed.place)
            if listed.damage:
                start = listed.place.offset
                where = f"{listed.segment.name}, bytes {start} to {start + listed.bytes}"
                found.troubles.append(_spool_trouble(directory.name, f"{where}: {listed.damage}"))
            if listed.header is None:
                continue
            for part in listed.header.parts:
                for range_ in part.ranges:
                    key = (range_.file, listed.header.output)
                    found.spans[key].append((range_.start, range_.end))
                    found.sources[key] = part.source
        # What was drained while we looked lies before the head now, what was added behind where it was synced before.
        found.seen[directory.name] = _Seen(blocks, Bounds(bounds_of(directory).head, synced))
        for number in strange_in(directory).missing:
            found.troubles.append(_spool_trouble(directory.name, f"segment {number:012d} is gone"))


def _missing_blocks(rows: Iterable[Held], seen: Mapping[str, _Seen]) -> Iterator[Trouble]:
    """Blocks that the database has in a spool, and that are not there."""
    missing: dict[str, list[Held]] = defaultdict(list)
    for row in rows:
        name = directory_name(row.output)
        there = seen.get(name, _Seen(set(), EVERYTHING))
        if there.bounds.head <= row.place < there.bounds.synced and row.place not in there.blocks:
            missing[name].append(row)
    for name, gone in missing.items():
        bytes_ = sum(span.end - span.start for row in gone for part in row.parts for span in part.ranges)
        yield _spool_trouble(name, f"{len(gone)} blocks with {bytes_} bytes of log are not there any more")


def _refused(data_dir: Path, found: _Kept) -> None:
    """Bytes of the ranges that dead letters came from; of a range that was refused in part, in proportion."""
    for directory in letter_boxes(data_dir):
        for letter in read_entries(directory):
            for part in letter.header.parts:
                for file, start, end in part.ranges:
                    key = (file, letter.header.output)
                    bytes_ = (end - start) * part.refused // max(part.records, 1)
                    found.refused[key].append(((start, end), bytes_))
                    found.sources[key] = part.source


def _spool_trouble(name: str, message: str) -> Trouble:
    hint = "what it held is written into the ledger when the agent starts or comes to it"
    return Trouble(subject=f"spool {name}", message=message, hint=hint, open=True)


def _files(books: Books, kept: _Kept, standing: Standing, *, running: bool) -> tuple[list[FileAudit], list[Trouble]]:
    progress: dict[int, list[Progress]] = defaultdict(list)
    for one in books.progress:
        progress[one.file].append(one)
    losses: dict[int, list[tuple[str, int, int | None]]] = defaultdict(list)
    for loss in books.losses:
        losses[loss.file].append((loss.output, loss.start, loss.end))
    reached: dict[int, int] = defaultdict(int)
    for begun in books.inflight:
        reached[begun.file] = max(reached[begun.file], begun.end)
    for (file, _), spans in kept.spans.items():
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
                spooled=kept.spans.get((row.id, one.output), ()),
                refused=kept.refused.get((row.id, one.output), ()),
            )
            found.append(_file(row, one, account))
    return found, troubles


def _file(row: FileRow, progress: Progress, account: Account) -> FileAudit:
    return FileAudit(
        path=row.path.encode(errors="surrogateescape").decode(errors="backslashreplace"),
        source=row.source,
        output=progress.output,
        file=row.id,
        generation=row.generation,
        gone=row.gone_ns is not None,
        position=progress.offset,
        account=account,
    )


def _vanished(row: FileRow, running: bool) -> Trouble:
    """A file that is neither where it was nor with the agent: nobody knows what was written to it at the end."""
    hint = "the next start looks for it, and writes into the ledger what was lost"
    if running:
        hint = (
            "its source or container may not be there any more; what was written after its last position is not known"
        )
    return Trouble(subject=row.path, message="is gone, and was not read to a known end", hint=hint, open=running)


def _sources(books: Books, kept: _Kept, files: list[FileAudit]) -> list[SourceAudit]:
    """The sums by source and output: files that are known, what is kept of forgotten ones, the ledger's totals."""
    live: dict[tuple[str, str], Account] = defaultdict(Account)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    known = {(file.file, file.output) for file in files}
    for file in files:
        live[file.source, file.output] = live[file.source, file.output].plus(file.account)
        counts[file.source, file.output] += 1
    forgotten = {(one.source, one.output): one for one in books.forgotten}
    strangers: dict[tuple[str, str], int] = defaultdict(int)
    dead: dict[tuple[str, str], int] = defaultdict(int)
    for key, source in kept.sources.items():
        if key not in known:
            strangers[source, key[1]] += sum(end - start for start, end in kept.spans.get(key, ()))
            dead[source, key[1]] += sum(bytes_ for _, bytes_ in kept.refused.get(key, ()))
    pairs = {*live, *forgotten, *strangers, *_lost_by(books, {*live, *forgotten, *strangers})}
    found = []
    for source, output in sorted(pairs):
        past = forgotten.get((source, output))
        reasons: dict[str, int] = defaultdict(int)
        unsized = 0
        for total in books.loss_totals:
            if total.source == source and total.output in {"", output}:
                reasons[total.reason] += total.bytes
                unsized += total.unknown
        account = live[source, output]
        pool = past.acked if past is not None else 0
        lost_before = account.lost + (past.lost if past is not None else 0)
        pool -= (lost := min(pool, max(0, sum(reasons.values()) - lost_before)))
        pool -= (held := min(pool, strangers[source, output]))
        pool -= (buried := min(pool, dead[source, output]))
        if past is not None:
            account = account.plus(
                Account(
                    written=past.written,
                    skipped=past.skipped,
                    lost=past.lost,
                    lost_unsized=past.lost_unsized,
                    unaccounted=past.unaccounted,
                )
            )
        # What a database that was replaced knew of is in the spool or a dead letter, and nowhere else in the books.
        older, older_dead = strangers[source, output] - held, dead[source, output] - buried
        account = account.plus(
            Account(
                written=older + older_dead,
                delivered=pool,
                lost=lost,
                spooled=held + older,
                dead_lettered=buried + older_dead,
            )
        )
        found.append(
            SourceAudit(
                source=source,
                output=output,
                files=counts[source, output] + (past.files if past is not None else 0),
                account=account,
                reasons=dict(reasons),
                unsized_losses=unsized,
            )
        )
    return found


def _lost_by(books: Books, pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Sources and outputs that only the ledger names."""
    named = {source for source, _ in pairs}
    return {
        (total.source, total.output or "-")
        for total in books.loss_totals
        if (total.output and (total.source, total.output) not in pairs) or total.source not in named
    }
