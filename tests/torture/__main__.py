"""`python -m tests.torture --seed S --duration D`: faults in random order, then one table of what each of them cost."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.faults import FAULTS, Fault, left_out
from tests.torture.judge import Tally
from tests.torture.table import HEADING, Charged, by_fault, row, slowest, total, verdict
from tests.torture.together import company_of, endure_together
from tests.torture.world import World


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


def run(world: World, faults: list[Fault], chosen: argparse.Namespace) -> dict[tuple[Fault, ...], Tally]:
    """Rounds of all faults in random order until the time is up, or exactly as many as were asked for."""
    charged: dict[tuple[Fault, ...], Tally] = {}
    deadline_s = time.monotonic() + chosen.duration
    rounds = 0
    world.start()
    while rounds < chosen.each if chosen.each else time.monotonic() < deadline_s:
        rounds += 1
        for fault in world.rng.sample(faults, len(faults)):
            if not chosen.each and time.monotonic() > deadline_s:
                break
            together = company_of(fault, faults, chosen.at_once, world.rng)
            if len(together) == 1 < chosen.at_once:
                continue  # it tolerates no other
            name = " + ".join(one.name for one in together)
            tally = charged.setdefault(together, Tally(name))
            if chosen.at_once == 1:
                endure(world, fault, tally)
            else:
                endure_together(world, together, tally)
            print(time.strftime("%H:%M:%S"), name, file=sys.stderr, flush=True)
    return charged


def _end_early(number: int, _: object) -> None:
    """A run that is ended must not leave its filesystems mounted, and not be ended again while it unmounts them."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    parser = _parser()
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
        charged = run(world, faults, chosen)
        charged[()] = world.finish()
        print(f"\nseed {chosen.seed}")
        for name, reason in missing.items():
            print(f"left out: {name} needs {reason}")
        wrong = report(world, faults, charged)
    finally:
        world.close()
        if chosen.keep:
            print(f"\nkept in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
    return 1 if wrong else 0


def report(world: World, faults: list[Fault], charged: Charged) -> bool:
    """Print what all of it has cost; whether something is wrong."""
    unaccounted, in_vain, tracebacks = world.audit().unaccounted, world.judge.said_in_vain(), world.tracebacks()
    whole = total("in all", charged.values())
    print(HEADING)
    for tally in [*by_fault(faults, charged), charged[()], whole]:
        print(row(tally))
    if whole.kills:
        print(f"killed {whole.kills} times at random moments")
    print(f"the longest recovery took {slowest(charged.values())}")
    print(f"the audit at the end finds {unaccounted} bytes unaccounted for")
    reasons = ", ".join(f"{lines} as {reason}" for reason, lines in in_vain.items())
    print(f"{sum(in_vain.values())} lines arrived although the ledger has them with their size {reasons}".rstrip())
    wrong = [words for together, tally in charged.items() for words in verdict(together, tally)]
    if unaccounted:
        wrong.append(f"hostagent audit: {unaccounted} bytes unaccounted for")
    if tracebacks:
        wrong.append(f"the agent's log has {tracebacks} tracebacks")
    for words in wrong:
        print(f"WRONG {words}")
    return bool(wrong)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--duration", type=float, default=120.0, help="seconds")
    parser.add_argument("--each", type=int, default=0, help="inject each fault so often instead of for a duration")
    parser.add_argument("--at-once", type=int, default=1, help="so many faults together, and kill -9 at random moments")
    parser.add_argument("--fault", action="append", help="only this one (repeatable); a part of its name is enough")
    parser.add_argument("--skip", action="append", default=[], help="not this one (repeatable)")
    parser.add_argument("--part", default="1/1", help="the first of three parts of the faults: 1/3")
    parser.add_argument("--rate", type=float, default=1e6, help="log bytes a second")
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--no-disks", action="store_true", help="leave out faults that need small filesystems (root)")
    parser.add_argument("--keep", action="store_true", help="keep logs, state and arrivals")
    parser.add_argument("--list", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
