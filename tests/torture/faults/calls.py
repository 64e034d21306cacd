"""Calls of the running agent are refused by the kernel: the disk answers with EIO, the filesystem with EROFS or ENOSPC.

Unlike a disk that is really broken these heal while the agent runs, and the agent has to go on by itself.
"""

from collections.abc import Callable
from pathlib import Path

from tests.support.waiting import wait_for
from tests.torture.faults.fault import Fault, Hold
from tests.torture.tampering import Failing, lacks_strace
from tests.torture.world import DATABASE, World

_WRITES = "pwrite64,pwritev2,fdatasync,fsync,ftruncate,fallocate"
_NAMES = "rename,renameat,renameat2,unlink,unlinkat"
_SOMETIMES = ("1+", "1+2", "2+3", "3+5")


def _database_files(world: World) -> list[Path]:
    return [world.data_dir / name for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm")]


def _spool_files(world: World) -> list[Path]:
    return [path for path in world.spool_dir.rglob("*") if path.is_file()]


def _refuse(world: World, calls: str, paths: list[Path], error: str) -> None:
    log = world.directory / "strace.log"
    world.tamper(Failing(log, calls, paths, how=f"{error}:when={world.rng.choice(_SOMETIMES)}"))


def _at_database(error: str) -> Callable[[World], None]:
    def inject(world: World) -> None:
        _refuse(world, _WRITES, _database_files(world), error)

    return inject


def _at_spool(error: str) -> Callable[[World], None]:
    def inject(world: World) -> None:
        world.backend.behave("refuse")
        wait_for(lambda: any(path.suffix == ".seg" for path in _spool_files(world)), "the spool to be used")
        _refuse(world, _WRITES, _spool_files(world), error)

    return inject


def _at_both(error: str) -> Callable[[World], None]:
    def inject(world: World) -> None:
        world.backend.behave("refuse")
        world.pause(0.0, 1.0)
        _refuse(world, f"{_WRITES},{_NAMES}", [], error)

    return inject


def _reading_back(world: World) -> None:
    """What was spooled can't be read while it is drained."""
    world.backend.behave("refuse")
    wait_for(lambda: any(path.suffix == ".seg" for path in _spool_files(world)), "the spool to be used")
    world.pause(0.5, 1.0)
    _refuse(world, "pread64,preadv,preadv2,read", _spool_files(world), "EIO")
    world.backend.behave()


def _works_again(world: World) -> None:
    world.stop_tampering()


def _work_again(world: World) -> None:
    world.stop_tampering()
    world.backend.behave()


_ALL_OF_IT = Hold.BACKEND | Hold.DISKS


FAULTS = [
    Fault("EIO writing the database", _at_database("EIO"), _works_again, Hold.DISKS, lacks=lacks_strace),
    Fault("EIO writing the spool", _at_spool("EIO"), _work_again, _ALL_OF_IT, spool=True, lacks=lacks_strace),
    Fault("EIO writing both", _at_both("EIO"), _work_again, _ALL_OF_IT, spool=True, lacks=lacks_strace),
    Fault("EROFS for both", _at_both("EROFS"), _work_again, _ALL_OF_IT, spool=True, lacks=lacks_strace),
    Fault("ENOSPC for both", _at_both("ENOSPC"), _work_again, _ALL_OF_IT, spool=True, lacks=lacks_strace),
    Fault(
        "EIO reading the spool", _reading_back, _work_again, _ALL_OF_IT, spool=True, destroys=True, lacks=lacks_strace
    ),
]
