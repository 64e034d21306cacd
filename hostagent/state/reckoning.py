"""The sum that must come out: every byte of a file that is known to exist, for one output, put under one heading.

Below an output's position bytes were acked: delivered, or spooled, dead-lettered or lost since. Above it they wait in
the file, or are spooled already, or lost. What fits nowhere is unaccounted. Pure arithmetic on byte ranges; nobody's
word for a total is taken, only positions, ranges and sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from hostagent.state.database.positions import Progress

Span = tuple[int, int]
"""Bytes [start, end)."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one file for one output, or sums of them; `written` is what all others add up to.

    `skipped` was not to be read (`start_at: end`). `lost_unsized` are bytes known to have been there within losses
    whose size nobody knows. `passed_over` is the part of `unaccounted` that lies below the position.
    """

    written: int = 0
    skipped: int = 0
    delivered: int = 0
    spooled: int = 0
    dead_lettered: int = 0
    lost: int = 0
    lost_unsized: int = 0
    waiting: int = 0
    unaccounted: int = 0
    passed_over: int = 0

    def plus(self, other: Account) -> Account:
        """Both together."""
        return Account(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


def reckon(
    progress: Progress,
    *,
    exists: int,
    readable: int = 0,
    losses: Iterable[tuple[int, int | None]] = (),
    spooled: Iterable[Span] = (),
    refused: Iterable[tuple[Span, int]] = (),
    begun: Iterable[Span] = (),
) -> Account:
    """Put the bytes [0, exists) under headings; [0, readable) can be read right now.

    `losses` are ranges, without an end where nobody knows it. `refused` are ranges of dead letters and how many of
    their bytes those stand for. `begun` are on their way; below the position because a spool has lost them, and they
    wait to be taken from the file again. A byte under two headings counts once: lost before spooled before begun
    before refused.
    """
    losses = list(losses)
    lost = union((start, end) for start, end in losses if end is not None)
    unsized = min((start for start, end in losses if end is None), default=None)
    held = without(union(spooled), lost)
    on_the_way = without(without(union(begun), lost), held)
    below = _below_the_position(progress, lost, held, on_the_way, refused)
    if not progress.wanted or exists <= progress.offset:
        return below
    return below.plus(_above_the_position((progress.offset, exists), lost, held, readable, unsized))


def _below_the_position(
    progress: Progress,
    lost: Sequence[Span],
    held: Sequence[Span],
    on_the_way: Sequence[Span],
    refused: Iterable[tuple[Span, int]],
) -> Account:
    """The bytes [0, offset): what was acked was delivered, as far as no other heading claims it."""
    offset = progress.offset
    below = [(0, offset)]
    skipped = min(max(progress.skipped, 0), offset)
    acked = min(max(progress.acked, 0), offset - skipped)
    passed_over = offset - skipped - acked
    delivered = acked
    delivered -= (gone := min(delivered, length(within(lost, below))))
    delivered -= (spooled := min(delivered, length(within(held, below))))
    on_the_way = within(on_the_way, below)
    delivered -= (waiting := min(delivered, length(on_the_way)))
    taken = union([*lost, *held, *on_the_way])
    dead = sum(_share(span, bytes_, taken) for span, bytes_ in refused if span[0] < offset)
    delivered -= (dead := min(delivered, dead))
    return Account(
        written=offset,
        skipped=skipped,
        delivered=delivered,
        spooled=spooled,
        dead_lettered=dead,
        lost=gone,
        waiting=waiting,
        unaccounted=passed_over,
        passed_over=passed_over,
    )


def _above_the_position(
    span: Span, lost: Sequence[Span], held: Sequence[Span], readable: int, unsized: int | None
) -> Account:
    """The bytes from the position to the end: lost or spooled already, or waiting as far as they can be read."""
    above = [span]
    rest = without(above, union([*lost, *held]))
    waiting = within(rest, [(0, readable)])
    rest = without(rest, waiting)
    given_up = within(rest, [(unsized, span[1])]) if unsized is not None else []
    return Account(
        written=length(above),
        spooled=length(within(held, above)),
        lost=length(within(lost, above)),
        lost_unsized=length(given_up),
        waiting=length(waiting),
        unaccounted=length(without(rest, given_up)),
    )


def _share(span: Span, bytes_: int, taken: Sequence[Span]) -> int:
    """What is left of some bytes of a range when others have taken parts of the range."""
    free = length(without([span], taken))
    return min(bytes_, free)


def union(spans: Iterable[Span]) -> list[Span]:
    """The same bytes as ranges in order that don't touch."""
    joined: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def within(spans: Sequence[Span], bounds: Sequence[Span]) -> list[Span]:
    """The parts of some ranges that lie in others."""
    found = []
    for start, end in spans:
        for low, high in bounds:
            if max(start, low) < min(end, high):
                found.append((max(start, low), min(end, high)))
    return found


def without(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The parts of some ranges that others, in order, do not cover."""
    left = []
    for start, end in spans:
        at = start
        for low, high in others:
            if high <= at:
                continue
            if low >= end:
                break
            if low > at:
                left.append((at, low))
            at = high
        if at < end:
            left.append((at, end))
    return left


def length(spans: Iterable[Span]) -> int:
    """How many bytes ranges that don't overlap have."""
    return sum(end - start for start, end in spans)
