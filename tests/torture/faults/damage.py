"""The agent's own files are damaged while it is away: bits flip, ends are cut off, whole files go."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.support.waiting import wait_for
from tests.torture.faults.fault import Fault, Hold, start, start_healthy
from tests.torture.world import World


def flip_bits(paths: list[Path], world: World, count: int) -> None:
    for path in paths:
        size = path.stat().st_size
        if not size:
            continue
        with path.open("r+b") as file:
            for _ in range(count):
                offset = world.rng.randrange(size)
                file.seek(offset)
                byte = file.read(1)
                file.seek(offset)
                file.write(bytes([byte[0] ^ 1 << world.rng.randrange(8)]))


def kill_before_damage(world: World) -> list[Path]:
    """The database's files, of an agent that is dead. What its ledger has said up to now has been said."""
    world.kill()
    world.judge.read_ledger()
    return world.database_files()


def _flip_in_database(world: World) -> None:
    flip_bits(kill_before_damage(world), world, 20)


def _truncate_database(world: World) -> None:
    for path in kill_before_damage(world):
        os.truncate(path, world.rng.randrange(path.stat().st_size + 1))


def _delete_database(world: World) -> None:
    for path in kill_before_damage(world):
        path.unlink()


def _delete_all_but_the_backup(world: World) -> None:
    world.back_up()
    world.pause(0.2, 1.0)
    for path in kill_before_damage(world):
        if not path.name.endswith(".backup"):
            path.unlink()


def kill_with_a_spool(world: World) -> list[Path]:
    """The files of a spool that holds something, of an agent that is dead."""
    world.backend.behave("refuse")
    wait_for(lambda: any(world.spool_dir.rglob("*.seg")), "the spool to be used")
    world.pause(0.5, 2.0)
    world.kill()
    return sorted(path for path in world.spool_dir.rglob("*") if path.is_file())


def _delete_database_and_spool(world: World) -> None:
    """What the agent knew is gone; the log files are not, and are read again."""
    files = kill_with_a_spool(world)
    world.judge.read_ledger()
    for path in [*files, *world.database_files()]:
        path.unlink()


def _truncate_database_and_spool(world: World) -> None:
    files = kill_with_a_spool(world)
    world.judge.read_ledger()
    for path in [*files, *world.database_files()]:
        os.truncate(path, world.rng.randrange(path.stat().st_size + 1))


def _spool_then(damage: Callable[[list[Path], World], None]) -> Callable[[World], None]:
    def inject(world: World) -> None:
        damage(kill_with_a_spool(world), world)

    return inject


def _flip_in_spool(files: list[Path], world: World) -> None:
    flip_bits(files, world, 3)


def _truncate_spool(files: list[Path], world: World) -> None:
    for path in files:
        os.truncate(path, world.rng.randrange(path.stat().st_size + 1))


def _delete_segments(files: list[Path], _: World) -> None:
    for path in files:
        if path.suffix == ".seg":
            path.unlink()


def _delete_spool(files: list[Path], _: World) -> None:
    for path in files:
        path.unlink()


_AT_ONCE = (0.0, 0.2)
_DATABASE = Hold.AGENT | Hold.STATE
_SPOOL = Hold.AGENT | Hold.BACKEND | Hold.DISKS
FAULTS = [
    Fault("database bit flips", _flip_in_database, start, _DATABASE, hold_s=_AT_ONCE, repeats=True),
    Fault("database truncated", _truncate_database, start, _DATABASE, hold_s=_AT_ONCE, repeats=True),
    Fault("database deleted", _delete_database, start, _DATABASE, hold_s=_AT_ONCE, repeats=True),
    Fault(
        "database deleted, backup there", _delete_all_but_the_backup, start, _DATABASE, hold_s=_AT_ONCE, repeats=True
    ),
    Fault(
        "database and spool truncated",
        _truncate_database_and_spool,
        start_healthy,
        _SPOOL,
        hold_s=_AT_ONCE,
        destroys=True,
        repeats=True,
    ),
    Fault(
        "database and spool deleted", _delete_database_and_spool, start_healthy, _SPOOL, hold_s=_AT_ONCE, repeats=True
    ),
    Fault("spool bit flips", _spool_then(_flip_in_spool), start_healthy, _SPOOL, hold_s=_AT_ONCE, destroys=True),
    Fault("spool truncated", _spool_then(_truncate_spool), start_healthy, _SPOOL, hold_s=_AT_ONCE, destroys=True),
    Fault(
        "spool segments deleted", _spool_then(_delete_segments), start_healthy, _SPOOL, hold_s=_AT_ONCE, destroys=True
    ),
    Fault("spool deleted", _spool_then(_delete_spool), start_healthy, _SPOOL, hold_s=_AT_ONCE, destroys=True),
]
