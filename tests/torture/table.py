"""What is said of a run at its end: a table with a row for each fault, and what no agent may do, if it did.

What several faults at once have cost stands in the rows of all of them; the last row counts everything once.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from tests.torture.faults import Fault
from tests.torture.judge import Tally

Charged = Mapping[tuple[Fault, ...], Tally]

HEADING = (
    f"{'fault':<40}{'injected':>9}{'written':>11}{'missing':>9}{'lost':>8}{'unaccounted':>13}{'twice':>8}{'altered':>9}"
    f"{'disordered':>12}{'recovered s, median':>21}{'worst':>7}"
)


def row(tally: Tally) -> str:
    median = f"{statistics.median(tally.recovered_s):.1f}" if tally.recovered_s else "never"
    worst = f"{max(tally.recovered_s):.1f}" if tally.recovered_s else ""
    return (
        f"{tally.fault:<40}{tally.injected:>9}{tally.written:>11}{tally.missing:>9}{tally.lost:>8}"
        f"{tally.unaccounted:>13}{tally.twice:>8}{tally.altered:>9}{tally.disordered:>12}{median:>21}{worst:>7}"
    )


def by_fault(faults: Sequence[Fault], charged: Charged) -> list[Tally]:
    """A row for each fault that had its turn: all it was part of."""
    sets = {fault.name: [tally for chosen, tally in charged.items() if fault in chosen] for fault in faults}
    return [total(name, tallies) for name, tallies in sets.items() if tallies]


def total(name: str, tallies: Iterable[Tally]) -> Tally:
    """All rows in one."""
    whole = Tally(name)
    for tally in tallies:
        whole.injected += tally.injected
        whole.written += tally.written
        whole.missing += tally.missing
        whole.lost += tally.lost
        whole.unseen += tally.unseen
        whole.unaccounted += tally.unaccounted
        whole.twice += tally.twice
        whole.altered += tally.altered
        whole.disordered += tally.disordered
        whole.kills += tally.kills
        whole.recovered_s += tally.recovered_s
    return whole


def slowest(tallies: Iterable[Tally]) -> str:
    """After which faults recovery took longest."""
    longest_s, names = max((max(tally.recovered_s, default=0.0), tally.fault) for tally in tallies)
    return f"{longest_s:.1f} s after {names}"


def verdict(faults: Sequence[Fault], tally: Tally) -> list[str]:
    """What no agent may do when these have come together; empty when all is well."""
    destroys = any(fault.destroys for fault in faults)
    repeats = any(fault.repeats for fault in faults)
    found = []
    if tally.unaccounted:
        found.append(f"{tally.fault}: {tally.unaccounted} bytes never came and are not in the ledger")
    # Logs that are deleted while other faults hold the agent up may be gone before it can have opened them.
    lost = tally.lost - (tally.unseen if len(faults) > 1 else 0)
    if lost and not destroys:
        found.append(f"{tally.fault}: {lost} lines lost, although nothing was taken away")
    if tally.unaccounted or (lost and not destroys):
        found += [f"{tally.fault}: {gap}" for gap in tally.gaps[:10]]
    if tally.altered:
        found.append(f"{tally.fault}: {tally.altered} lines altered")
    if tally.twice and not repeats:
        found.append(f"{tally.fault}: {tally.twice} lines came twice")
    # What is cut again for a damaged spool comes behind what was whole in it.
    late = destroys or (len(faults) > 1 and any(fault.spool for fault in faults))
    if tally.disordered and not repeats and not late:
        found.append(f"{tally.fault}: {tally.disordered} lines out of order")
    return found
