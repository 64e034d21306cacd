"""`python -m tests.torture --seed S --duration D`: faults in random order, then one table of what each of them cost."""

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.faults import FAULTS, Fault, left_out
from tests.torture.judge import Tally
from tests.torture.world import World

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


def verdict(faults: list[Fault], tallies: list[Tally]) -> list[str]:
    """What no agent may do, by fault; empty when all is well."""
    destroys = {fault.name for fault in faults if fault.destroys}
    repeats = {fault.name for fault in faults if fault.repeats}
    found = []
    for tally in tallies:
        if tally.unaccounted:
            found.append(f"{tally.fault}: {tally.unaccounted} bytes never came and are not in the ledger")
        if tally.lost and tally.fault not in destroys:
            found.append(f"{tally.fault}: {tally.lost} lines lost, although nothing was taken away")
        if tally.unaccounted or tally.fault not in destroys:
            found += [f"{tally.fault}: {gap}" for gap in tally.gaps[:10]]
        if tally.altered:
            found.append(f"{tally.fault}: {tally.altered} lines altered")
        if tally.fault not in repeats and tally.twice:
            found.append(f"{tally.fault}: {tally.twice} lines came twice")
        # What is cut again for a damaged spool comes behind what was whole in it.
        if tally.fault not in repeats | destroys and tally.disordered:
            found.append(f"{tally.fault}: {tally.disordered} lines out of order")
    return found


def total(tallies: list[Tally]) -> Tally:
    """All rows in one."""
    whole = Tally("in all")
    for tally in tallies:
        whole.injected += tally.injected
        whole.written += tally.written
        whole.missing += tally.missing
        whole.lost += tally.lost
        whole.unaccounted += tally.unaccounted
        whole.twice += tally.twice
        whole.altered += tally.altered
        whole.disordered += tally.disordered
        whole.recovered_s += tally.recovered_s
    return whole


def endure(world: World, fault: Fault, tally: Tally) -> None:
    """One injection from a healthy world to a healthy world."""
    before = sum(world.writer.state().values())
    world.wait_for_traffic()
    fault.inject(world)
    world.pause(*fault.hold_s)
    fault.heal(world)
    world.settle(tally, repeats=fault.repeats)
    tally.injected += 1
    tally.written += sum(world.writer.state().values()) - before


def run(world: World, faults: list[Fault], duration_s: float, times_each: int) -> list[Tally]:
    """Rounds of all faults in random order until the time is up, or exactly `times_each` rounds."""
    tallies = {fault.name: Tally(fault.name) for fault in faults}
    deadline_s = time.monotonic() + duration_s
    rounds = 0
    world.start()
    while rounds < times_each if times_each else time.monotonic() < deadline_s:
        rounds += 1
        for fault in world.rng.sample(faults, len(faults)):
            if not times_each and time.monotonic() > deadline_s:
                break
            endure(world, fault, tallies[fault.name])
            print(time.strftime("%H:%M:%S"), fault.name, file=sys.stderr, flush=True)
    return list(tallies.values())


def _end_early(number: int, _: object) -> None:
    """A run that is ended must not leave its filesystems mounted, and not be ended again while it unmounts them."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--duration", type=float, default=120.0, help="seconds")
    parser.add_argument("--each", type=int, default=0, help="inject each fault so often instead of for a duration")
    parser.add_argument("--fault", action="append", help="only this one (repeatable); a part of its name is enough")
    parser.add_argument("--skip", action="append", default=[], help="not this one (repeatable)")
    parser.add_argument("--part", default="1/1", help="the first of three parts of the faults: 1/3")
    parser.add_argument("--rate", type=float, default=1e6, help="log bytes a second")
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--no-disks", action="store_true", help="leave out faults that need small filesystems (root)")
    parser.add_argument("--keep", action="store_true", help="keep logs, state and arrivals")
    parser.add_argument("--list", action="store_true")
    chosen = parser.parse_args()
    if chosen.list:
        print("\n".join(fault.name for fault in FAULTS))
        return 0
    missing = left_out(disks=not chosen.no_disks)
    disks = not chosen.no_disks and not any(fault.disks and fault.name in missing for fault in FAULTS)
    faults = [
        fault
        for fault in FAULTS
        if fault.name not in missing
        and (not chosen.fault or any(part in fault.name for part in chosen.fault))
        and not any(part in fault.name for part in chosen.skip)
    ]
    part, parts = map(int, chosen.part.split("/"))
    faults = faults[part - 1 :: parts]
    if not faults:
        parser.error("no fault of that name can be had here; --list shows them all")
    signal.signal(signal.SIGTERM, _end_early)
    directory = Path(tempfile.mkdtemp(prefix="hostagent-torture."))
    world = World(directory, chosen.seed, chosen.rate, chosen.streams, disks=disks)
    try:
        tallies = run(world, faults, chosen.duration, chosen.each)
        tallies.append(world.finish())
        unaccounted, in_vain = world.audit().unaccounted, world.judge.said_in_vain()
    finally:
        world.close()
        if chosen.keep:
            print(f"\nkept in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
    print(f"\nseed {chosen.seed}")
    for name, reason in missing.items():
        print(f"left out: {name} needs {reason}")
    print(HEADING)
    for tally in [*tallies, total(tallies)]:
        print(row(tally))
    print(f"the audit at the end finds {unaccounted} bytes unaccounted for")
    reasons = ", ".join(f"{lines} as {reason}" for reason, lines in in_vain.items())
    print(f"{sum(in_vain.values())} lines arrived although the ledger has them with their size {reasons}".rstrip())
    wrong = verdict(faults, tallies)
    if unaccounted:
        wrong.append(f"hostagent audit: {unaccounted} bytes unaccounted for")
    for words in wrong:
        print(f"WRONG {words}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
