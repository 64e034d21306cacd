"""Several faults at the same time, with kills at random moments among them: what comes together in the field.

Which of them can be drawn together is said by what each takes of the world. They begin one after the other and end one
after the other, in an order that is drawn, too; recovery is awaited when the last has ended.
"""

import random
import time
from collections.abc import Sequence

from tests.torture.faults import Fault, Hold
from tests.torture.judge import Tally
from tests.torture.world import World

KILL_EVERY_S = 1.0
_KILLED_SHARE = 0.5  # of the sets, if their first fault lets others kill the agent
_AWAY_S = (0.0, 0.3)
_BETWEEN_S = (0.0, 0.5)


def company_of(first: Fault, others: Sequence[Fault], at_most: int, rng: random.Random) -> tuple[Fault, ...]:
    """The first fault and others that don't exclude each other, of another kind each as long as there is one."""
    chosen = [first]
    if rng.random() < _KILLED_SHARE:
        others = [fault for fault in others if not fault.takes & Hold.AGENT]
    while len(chosen) < at_most:
        free = [fault for fault in others if not any(fault.takes & other.takes for other in chosen)]
        if not free:
            break
        kinds = {fault.kind for fault in free}
        kind = rng.choice(sorted(kinds - {fault.kind for fault in chosen} or kinds))
        chosen.append(rng.choice([fault for fault in free if fault.kind == kind]))
    return tuple(chosen)


def endure_together(world: World, faults: Sequence[Fault], tally: Tally) -> None:
    """From a healthy world to a healthy world, as one fault alone."""
    before = sum(world.writer.state().values())
    world.wait_for_traffic()
    may_kill = not any(fault.takes & Hold.AGENT for fault in faults)
    with world.company():
        # Those that take the agent away come last: others need it to begin.
        for fault in sorted(world.rng.sample(faults, len(faults)), key=lambda fault: Hold.AGENT in fault.takes):
            fault.inject(world)
            tally.kills += _let_pass(world, _BETWEEN_S, may_kill=may_kill)
        tally.kills += _let_pass(world, max(fault.hold_s for fault in faults), may_kill=may_kill)
        for fault in world.rng.sample(faults, len(faults)):
            fault.heal(world)
            tally.kills += _let_pass(world, _BETWEEN_S, may_kill=may_kill)
    world.settle(tally, repeats=any(fault.repeats for fault in faults))
    tally.injected += 1
    tally.written += sum(world.writer.state().values()) - before


def _let_pass(world: World, between_s: tuple[float, float], *, may_kill: bool) -> int:
    """Let a time pass that is drawn between the two; how often the agent was killed meanwhile."""
    kills = 0
    end_s = time.monotonic() + world.rng.uniform(*between_s)
    while (left_s := end_s - time.monotonic()) > 0:
        kill_in_s = world.rng.expovariate(1 / KILL_EVERY_S)
        time.sleep(min(left_s, kill_in_s))
        if may_kill and kill_in_s < left_s:
            world.kill()
            world.pause(*_AWAY_S)
            world.launch()
            kills += 1
    return kills
