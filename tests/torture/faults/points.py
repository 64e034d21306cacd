"""kill -9 at named points: right before a call that changes what is on disk, and right after it.

The agent is started under strace, spools, drains and stops; for calls that only a repair makes, it finds its database
damaged with a backup beside it, or its spool. The kill comes at one of the first such calls.
"""

from collections.abc import Callable
from signal import SIGKILL, SIGTERM

from tests.torture.faults.damage import flip_bits, kill_before_damage, kill_with_a_spool
from tests.torture.faults.fault import Fault, Hold, start
from tests.torture.tampering import Point, comes_true, killing_before, lacks_strace, made_in, stopping_after
from tests.torture.world import DATABASE, World

_RENAMES = "rename,renameat,renameat2"
_UNLINKS = "unlink,unlinkat"
POINTS = (
    Point("a WAL write", "pwrite64", (f"{DATABASE}-wal",), up_to=60),
    Point("a database write", "pwrite64", (DATABASE,), up_to=4),
    Point("a spool segment write", "pwritev2", up_to=4),
    Point("a write to the spool's marks", "pwrite64", ("spool/main/cursor", "spool/main/segments"), up_to=2),
    Point("fdatasync", "fdatasync", up_to=6),
    Point("unlink", _UNLINKS, up_to=2),
    Point("ftruncate", "ftruncate", up_to=5),
    Point("fsync, database damaged", "fsync", up_to=2, damaged="database"),
    Point("rename, database damaged", _RENAMES, up_to=3, damaged="database"),
    Point("unlink, database damaged", _UNLINKS, up_to=4, damaged="database"),
    Point("a WAL write, spool damaged", "pwrite64", (f"{DATABASE}-wal",), up_to=60, damaged="spool"),
    Point("rename, spool damaged", _RENAMES, up_to=2, damaged="spool"),
    Point("unlink, spool damaged", _UNLINKS, up_to=2, damaged="spool"),
)

_MORE_TRIES = 5


def _kill_at(point: Point, *, after: bool) -> Callable[[World], None]:
    def inject(world: World) -> None:
        # Not every start comes to the nth such call, but it may have repaired the damage: each try has its own.
        for nth in (world.rng.randint(1, point.up_to), *[1] * _MORE_TRIES):
            if not world.agent.running:
                world.start()
            _kill_and_damage(world, point.damaged)
            if _dies_at(world, point, nth, after=after):
                break
        else:
            raise AssertionError(f"the agent never came to {point.name}. {world.agent.tail()}")
        world.backend.behave()

    return inject


def _kill_and_damage(world: World, what: str) -> None:
    match what:
        case "database":
            world.back_up()
            world.pause(0.1, 0.5)
            kill_before_damage(world)
            (world.data_dir / DATABASE).write_bytes(b"no database any more".ljust(4096))
        case "spool":
            flip_bits([path for path in kill_with_a_spool(world) if path.suffix == ".seg"], world, 3)
        case _:
            world.kill()


def _dies_at(world: World, point: Point, nth: int, *, after: bool) -> bool:
    """Start, spool, drain and stop it; whether it was killed at the point on the way."""
    log = world.directory / "strace.log"
    log.unlink(missing_ok=True)
    paths = [world.data_dir / path for path in point.paths]
    wrap = stopping_after if after else killing_before
    world.backend.behave("refuse")
    world.agent.wrapper = wrap(log, point.calls, paths, nth)
    world.agent.start()
    world.agent.wrapper = []

    def there() -> bool:
        return not world.agent.running or (after and made_in(log))

    # On a busy machine it takes a while until the backend is given up and the spool is begun.
    comes_true(lambda: there() or any(world.spool_dir.rglob("*.seg")), 15.0)
    if not comes_true(there, 1.0):
        world.backend.behave()
        if not comes_true(there, 3.0):
            world.agent.signal(SIGTERM)
            comes_true(there, 10.0)
    hit = made_in(log) if after else world.agent.exit_code == -SIGKILL
    world.kill_traced()
    return hit


FAULTS = [
    Fault(
        f"kill -9 {'after' if after else 'before'} {point.name}",
        _kill_at(point, after=after),
        start,
        Hold.BACKEND | Hold.PRESENCE | Hold.DISKS,
        hold_s=(0.0, 0.1),
        repeats=point.damaged == "database",
        destroys=point.damaged == "spool",
        lacks=lacks_strace,
    )
    for point in POINTS
    for after in (False, True)
]
