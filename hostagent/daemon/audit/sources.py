"""The audit's sums by source and output: the files that are known, those that are forgotten, and the ledger's totals.

The last step of the sum. It adds up what `audit` found for each file, and puts what forgotten files left behind (bytes
acked, still spooled, in dead letters, lost) under the same headings. Nothing is read here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from hostagent.daemon.audit.beside import Beside
from hostagent.daemon.audit.report import FileAudit, SourceAudit
from hostagent.state.books import Books
from hostagent.state.database.totals import Forgotten
from hostagent.state.reckoning import Account

Pair = tuple[str, str]
"""A source and an output."""


def source_audits(books: Books, beside: Beside, files: Iterable[FileAudit]) -> list[SourceAudit]:
    """One sum for every source and output that anything is known of, by name."""
    live: dict[Pair, list[FileAudit]] = defaultdict(list)
    for file in files:
        live[file.source, file.output].append(file)
    spooled, dead = _of_forgotten_files(beside, {(file.file, file.output) for own in live.values() for file in own})
    forgotten = {(one.source, one.output): one for one in books.forgotten}
    pairs = {*live, *forgotten, *spooled}
    found = []
    for source, output in sorted({*pairs, *_lost_by(books, pairs)}):
        pair = (source, output)
        own = live.get(pair, [])
        past = forgotten.get(pair, Forgotten(source, output, 0, 0, 0, 0, 0, 0, 0))
        reasons, unsized = _losses(books, source, output)
        account = Account()
        for file in own:
            account = account.plus(file.account)
        lost = max(0, sum(reasons.values()) - account.lost - past.lost)
        folded = _folded(
            account.unaccounted - account.passed_over + past.unaccounted,
            min(lost, sum(reasons.values()) - _bytes_in_lines(books, pair)),
        )
        past_account = _past_account(past, lost - folded.lost, spooled.get(pair, 0), dead.get(pair, 0))
        found.append(
            SourceAudit(
                source=source,
                output=output,
                files=len(own) + past.files,
                account=account.plus(past_account).plus(folded),
                reasons=reasons,
                unsized_losses=unsized,
            )
        )
    return found


def _of_forgotten_files(beside: Beside, known: set[tuple[int, str]]) -> tuple[Mapping[Pair, int], Mapping[Pair, int]]:
    """Bytes in spools, and in dead letters, of files that the database knows no more."""
    spooled: dict[Pair, int] = defaultdict(int)
    dead: dict[Pair, int] = defaultdict(int)
    for key, source in beside.sources.items():
        if key not in known:
            spooled[source, key[1]] += sum(end - start for start, end in beside.spans.get(key, ()))
            dead[source, key[1]] += sum(bytes_ for _, bytes_ in beside.refused.get(key, ()))
    return spooled, dead


def _losses(books: Books, source: str, output: str) -> tuple[Mapping[str, int], int]:
    """The ledger's bytes by reason, and how many of its losses have no known size."""
    reasons: dict[str, int] = defaultdict(int)
    unsized = 0
    for total in books.loss_totals:
        if total.source == source and total.output in {"", output}:
            reasons[total.reason] += total.bytes
            unsized += total.unknown
    return dict(reasons), unsized


def _bytes_in_lines(books: Books, pair: Pair) -> int:
    """Bytes of the losses that have their lines in the ledger: it keeps the newest, and of all others the totals."""
    return sum(
        loss.end - loss.start
        for loss in books.losses
        if loss.end is not None and loss.source == pair[0] and loss.output in {"", pair[1]}
    )


def _folded(unaccounted: int, without_lines: int) -> Account:
    """What to add to a sum in which bytes seem unaccounted for because the lines of their losses are not kept."""
    bytes_ = min(unaccounted, max(0, without_lines))
    return Account(lost=bytes_, unaccounted=-bytes_)


def _past_account(past: Forgotten, lost: int, spooled: int, dead: int) -> Account:
    """What forgotten files came to: acked bytes are delivered unless they were lost since or still lie here."""
    acked = past.acked
    acked -= (lost := min(acked, lost))
    acked -= (held := min(acked, spooled))
    acked -= (buried := min(acked, dead))
    # What a database that was replaced knew of is in the spool or a dead letter, and nowhere else in the books.
    older, older_dead = spooled - held, dead - buried
    return Account(
        written=past.written + older + older_dead,
        skipped=past.skipped,
        delivered=acked,
        spooled=held + older,
        dead_lettered=buried + older_dead,
        lost=past.lost + lost,
        lost_unsized=past.lost_unsized,
        unaccounted=past.unaccounted,
    )


def _lost_by(books: Books, pairs: set[Pair]) -> set[Pair]:
    """Sources and outputs that only the ledger names."""
    named = {source for source, _ in pairs}
    return {
        (total.source, total.output or "-")
        for total in books.loss_totals
        if (total.output and (total.source, total.output) not in pairs) or total.source not in named
    }
