"""What a fault is: how it begins, how it ends, what it may cost. Between the two the world goes on for a random while.

A fault must be healable: after `heal` an agent that keeps its promises delivers everything that was written meanwhile,
except what a fault that `destroys` has taken; that must be in the ledger.
"""

import enum
from collections.abc import Callable

import msgspec

from tests.torture.world import World


class Hold(enum.Flag):
    """What of the world a fault needs to itself while it lasts, be it to break it or because it must work."""

    BACKEND = enum.auto()  # how it answers
    LOAD = enum.auto()  # how logs are rotated
    LINKS = enum.auto()  # second names of logs
    AGENT = enum.auto()  # its process: who kills, freezes, starts it; whoever deletes logs needs it to be there
    COMMAND = enum.auto()  # what it is started by
    STATE = enum.auto()  # the database and its disk
    SPOOL = enum.auto()  # the spool and its disk
    DISKS = STATE | SPOOL
    PRESENCE = AGENT | COMMAND  # nobody starts it anew, for any reason


class Fault(msgspec.Struct, frozen=True):
    """`hold_s` is how long it lasts, drawn between the two. `disks` needs the small filesystems, hence root.
    Two that `take` a thing in common exclude each other.

    A fault that `destroys` takes bytes that nobody else has any more. Lines may be lost then, but not silently.
    One that `repeats` takes what the agent knew of its own work: lines may come again under other ids.
    Under one that is at the `spool` an agent that others start anew can't open it at once: its blocks come later then.
    `lacks` says what this machine has not that it needs; nothing, when it can be had.
    """

    name: str
    inject: Callable[[World], None]
    heal: Callable[[World], None]
    takes: Hold
    hold_s: tuple[float, float] = (0.2, 2.0)
    disks: bool = False
    destroys: bool = False
    repeats: bool = False
    spool: bool = False
    lacks: Callable[[], str] = str

    @property
    def kind(self) -> str:
        """The file it stands in."""
        return self.inject.__module__.rpartition(".")[2]


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
