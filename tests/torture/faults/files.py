"""The log files are rotated, copied, packed, deleted, linked and replaced faster than any system does it."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support.streams import ROTATIONS
from tests.support.waiting import wait_for
from tests.torture.faults.fault import Fault, Hold, nothing, start
from tests.torture.world import World

_LINKED = ".linked"
_TRIES = 20


def _storm(rotations_per_s: float, *rotations: str, in_turn: bool = False) -> Callable[[World], None]:
    def inject(world: World) -> None:
        world.storm(rotations_per_s, rotations, in_turn=in_turn)

    return inject


def _calm(world: World) -> None:
    world.storm()


def _storm_and_kill(world: World) -> None:
    world.storm(20.0)
    world.pause(0.2, 1.0)
    world.kill()
    world.storm()


def _link_live_files(world: World) -> None:
    """Every live file gets a second name that the agent is to read, too: the same file, so the same lines."""
    for path in world.logs.glob("*.log"):
        # The writer rotates meanwhile: a file may have been renamed since it was listed.
        with contextlib.suppress(FileNotFoundError):
            os.link(path.resolve(), world.logs / f"{path.name}{_LINKED}")


def _unlink_again(world: World) -> None:
    for path in world.logs.glob(f"*{_LINKED}"):
        path.unlink()


def _delete_all(world: World) -> list[int]:
    """Everything is delivered, nobody writes, and the live files go; their inodes."""
    written = world.writer.order("pause")
    world.wait_for_all(written)
    inodes = [path.stat().st_ino for path in world.logs.glob("*.log")]
    world.writer.order("delete")
    return inodes


def _reuse_inodes(world: World) -> None:
    """Others on this filesystem may be quicker to get one."""
    for _ in range(_TRIES):
        if world.writer.reuse_inodes():
            break
        world.writer.order("delete", last_words=0)
    else:
        raise AssertionError("no inode came back")
    world.writer.order("resume")


def _reuse_while_running(world: World) -> None:
    inodes = set(_delete_all(world))
    wait_for(lambda: not inodes & world.agent.open_inodes(), "the agent to let go of the deleted files")
    _reuse_inodes(world)


def _reuse_while_away(world: World) -> None:
    written = world.writer.order("pause")
    world.wait_for_all(written)
    world.kill()
    world.writer.order("delete", last_words=0)
    _reuse_inodes(world)


def _no_reuse() -> str:
    with tempfile.TemporaryDirectory(prefix="hostagent-torture.") as folder:
        freed = set()
        for number in range(300):
            path = Path(folder, f"{number}")
            path.touch()
            if path.stat().st_ino in freed:
                return ""
            if number % 10 == 0:  # others may be quicker to get this one
                freed.add(path.stat().st_ino)
                path.unlink()
    return f"a filesystem under {tempfile.gettempdir()} that uses inodes again"


_SHORT = (1.0, 2.0)
FAULTS = [
    Fault("rotation storm 50/s", _storm(50.0, *ROTATIONS), _calm, Hold.LOAD | Hold.PRESENCE, hold_s=(1.0, 3.0)),
    Fault("rotation storm, kill -9", _storm_and_kill, start, Hold.LOAD | Hold.AGENT, hold_s=(0.0, 0.3)),
    Fault("copytruncate 20/s", _storm(20.0, "copytruncate"), _calm, Hold.LOAD, hold_s=_SHORT),
    Fault(
        "rename and gzip 20/s",
        _storm(20.0, "rename_gzip", in_turn=True),
        _calm,
        Hold.LOAD | Hold.PRESENCE,
        hold_s=_SHORT,
    ),
    Fault("rename, late reopen 20/s", _storm(20.0, "rename_late_reopen"), _calm, Hold.LOAD, hold_s=_SHORT),
    Fault("hard link and unlink 20/s", _storm(20.0, "hard_link"), _calm, Hold.LOAD, hold_s=_SHORT),
    Fault("symlink swap 20/s", _storm(20.0, "symlink_swap"), _calm, Hold.LOAD, hold_s=_SHORT),
    Fault(
        "delete 5/s",
        _storm(5.0, "delete", in_turn=True),
        _calm,
        Hold.LOAD | Hold.LINKS | Hold.PRESENCE,
        hold_s=_SHORT,
    ),
    Fault("hard link to a live file", _link_live_files, _unlink_again, Hold.LINKS),
    Fault("inode reused, agent running", _reuse_while_running, nothing, ~Hold(0), lacks=_no_reuse),
    Fault("inode reused, agent away", _reuse_while_away, start, ~Hold(0), hold_s=(0.0, 0.3), lacks=_no_reuse),
]
