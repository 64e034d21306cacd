"""`python -m tests.torture --seed S --duration D`: faults in random order, then one table of what each of them cost."""

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.faults import FAULTS, Fault, usable
from tests.torture.world import Tally, World

HEADING = (
    f"{'fault':<30}{'injected':>9}{'written':>11}{'lost':>7}{'twice':>7}{'unaccounted':>13}{'wrong':>7}"
    f"{'recovered s, median':>21}{'worst':>7}"
)


def row(tally: Tally) -> str:
    median = f"{statistics.median(tally.recovered_s):.1f}" if tally.recovered_s else "never"
    worst = f"{max(tally.recovered_s):.1f}" if tally.recovered_s else ""
    return (
        f"{tally.fault:<30}{tally.injected:>9}{tally.written:>11}{tally.lost:>7}{tally.twice:>7}"
        f"{tally.unaccounted:>13}{tally.wrong:>7}{median:>21}{worst:>7}"
    )


def endure(world: World, fault: Fault, tally: Tally) -> None:
    """One injection from a healthy world to a healthy world."""
    before = sum(world.writer.state().values())
    world.wait_for_traffic()
    fault.inject(world)
    world.pause(*fault.hold_s)
    fault.heal(world)
    world.settle(tally)
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
            print(".", end="", file=sys.stderr, flush=True)
    return list(tallies.values())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--duration", type=float, default=120.0, help="seconds")
    parser.add_argument("--each", type=int, default=0, help="inject each fault so often instead of for a duration")
    parser.add_argument("--fault", action="append", help="only this one (repeatable); a part of its name is enough")
    parser.add_argument("--rate", type=float, default=1e6, help="log bytes a second")
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--no-disks", action="store_true", help="leave out faults that need small filesystems (root)")
    parser.add_argument("--keep", action="store_true", help="keep logs, state and arrivals")
    parser.add_argument("--list", action="store_true")
    chosen = parser.parse_args()
    if chosen.list:
        print("\n".join(fault.name for fault in FAULTS))
        return 0
    disks = not chosen.no_disks and os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None
    faults = [fault for fault in usable(disks) if not chosen.fault or any(part in fault.name for part in chosen.fault)]
    if not faults:
        parser.error("no fault of that name can be had here; --list shows them all")
    # A run that is ended early must not leave its filesystems mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="hostagent-torture."))
    world = World(directory, chosen.seed, chosen.rate, chosen.streams, disks=disks)
    try:
        tallies = run(world, faults, chosen.duration, chosen.each)
        written, missing = world.finish()
        unaccounted = world.audit().unaccounted
    finally:
        world.close()
        if chosen.keep:
            print(f"\nkept in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
    print(f"\nseed {chosen.seed}, {sum(written.values())} lines written, {missing} missing at the end\n{HEADING}")
    for tally in tallies:
        print(row(tally))
    print(f"the audit at the end finds {unaccounted} bytes unaccounted for")
    # Lines given up for one fault may arrive during a later one, which then counts them as negative: the sum tells.
    destructive = {fault.name for fault in faults if fault.destroys}
    plain = [tally for tally in tallies if tally.fault not in destructive]
    lost = sum(tally.lost for tally in plain)
    # Bytes that come again after a database was lost may come behind newer ones.
    wrong = sum(tally.wrong for tally in plain if not tally.fault.startswith("database"))
    return 1 if lost > 0 or wrong or unaccounted or (missing and not destructive) else 0


if __name__ == "__main__":
    sys.exit(main())
