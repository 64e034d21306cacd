"""What a fault is: how it begins, how it ends, what it may cost. Between the two the world goes on for a random while.

A fault must be healable: after `heal` an agent that keeps its promises delivers everything that was written meanwhile,
except what a fault that `destroys` has taken; that must be in the ledger.
"""

from collections.abc import Callable

import msgspec

from tests.torture.world import World


class Fault(msgspec.Struct, frozen=True):
    """`hold_s` is how long it lasts, drawn between the two. `disks` needs the small filesystems, hence root.

    A fault that `destroys` takes bytes that nobody else has any more. Lines may be lost then, but not silently.
    One that `repeats` takes what the agent knew of its own work: lines may come again under other ids.
    `lacks` says what this machine has not that it needs; nothing, when it can be had.
    """

    name: str
    inject: Callable[[World], None]
    heal: Callable[[World], None]
    hold_s: tuple[float, float] = (0.2, 2.0)
    disks: bool = False
    destroys: bool = False
    repeats: bool = False
    lacks: Callable[[], str] = str


def nothing(world: World) -> None:
    """Faults that heal by themselves."""


def start(world: World) -> None:
    world.start()


def healthy(world: World) -> None:
    """The backend is back."""
    world.backend.behave()


def start_healthy(world: World) -> None:
    world.start()
    world.backend.behave()
