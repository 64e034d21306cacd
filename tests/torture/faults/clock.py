"""The wall clock is set while the agent runs, and set back over its restart. The monotonic clock goes on as ever."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.torture.faults.fault import Fault, Hold
from tests.torture.world import World

_STEPS_S = (1, 60, 3600, 3 * 86400, 400 * 86400)
_SHARED_MEMORY = Path("/dev/shm")
_LIBRARIES = "libfaketime/libfaketimeMT.so.1", "faketime/libfaketimeMT.so.1"


def _library() -> Path | None:
    folders = [*Path("/usr/lib").glob("*-linux-gnu"), Path("/usr/lib"), Path("/usr/lib64")]
    found = [folder / name for folder in folders for name in _LIBRARIES if (folder / name).exists()]
    return found[0] if found else None


def _no_library() -> str:
    return "" if _library() and shutil.which("faketime") else "the program faketime"


def _forget_the_dead() -> None:
    """Of a killed process libfaketime leaves what it shared under its id, and whoever gets that id can't start."""
    for path in _SHARED_MEMORY.glob("*faketime_s*_*"):
        if not Path(f"/proc/{path.name.rpartition('_')[2]}").exists():
            path.unlink(missing_ok=True)


def _step(sign: int) -> Callable[[World], None]:
    def inject(world: World) -> None:
        clock = world.directory / "clock"
        clock.write_text("+0\n")
        _forget_the_dead()
        world.run_under(
            "env",
            f"LD_PRELOAD={_library()}",
            f"FAKETIME_TIMESTAMP_FILE={clock}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "NO_FAKE_STAT=1",
        )
        world.pause(0.2, 0.8)
        clock.write_text(f"{sign * world.rng.choice(_STEPS_S):+d}\n")

    return inject


def _back(world: World) -> None:
    world.run_under()


FAULTS = [
    Fault("clock stepped forwards", _step(1), _back, Hold.COMMAND, hold_s=(1.0, 2.0), lacks=_no_library),
    Fault("clock stepped backwards", _step(-1), _back, Hold.COMMAND, hold_s=(1.0, 2.0), lacks=_no_library),
]
