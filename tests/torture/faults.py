"""Every fault: how it begins and how it ends. Between the two the world goes on for a random while.

A fault must be healable: after `heal` an agent that keeps its promises delivers everything that was written meanwhile,
except what a fault that `destroys` has taken; that must be in the ledger.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import msgspec

from tests.support.streams import ROTATIONS
from tests.torture.world import World


class Fault(msgspec.Struct, frozen=True):
    """`hold_s` is how long it lasts, drawn between the two. `disks` needs the small filesystems, hence root.

    A fault that `destroys` takes bytes that nobody else has any more. Lines may be lost then, but not silently.
    One that `repeats` takes what the agent knew of its own work: lines may come again under other ids.
    """

    name: str
    inject: Callable[[World], None]
    heal: Callable[[World], None]
    hold_s: tuple[float, float] = (0.2, 2.0)
    disks: bool = False
    destroys: bool = False
    repeats: bool = False


def _nothing(world: World) -> None:
    """Faults that heal by themselves."""


def _kill(world: World) -> None:
    world.kill()


def _start(world: World) -> None:
    world.start()


def _kill_while_starting(world: World) -> None:
    for _ in range(3):
        world.kill()
        world.agent.start()
        world.pause(0.05, 0.6)


def _stop(world: World) -> None:
    assert world.agent.stop() == 0, world.agent.tail()


def _freeze(world: World) -> None:
    world.agent.signal(SIGSTOP)


def _thaw(world: World) -> None:
    world.agent.signal(SIGCONT)


def _backend(kind: str, **options: Any) -> Callable[[World], None]:  # noqa: ANN401 - fields of Behaviour
    def inject(world: World) -> None:
        world.backend.behave(kind, **options)

    return inject


def _backend_healthy(world: World) -> None:
    world.backend.behave()


def _down_and_killed(world: World) -> None:
    world.backend.behave("refuse")
    world.pause(0.2, 1.0)
    world.kill()
    world.pause(0.0, 0.5)
    world.start()


def _down_and_deleted(world: World) -> None:
    """Live files vanish while nothing can be delivered: the agent's open descriptors and its spool are all there is."""
    world.backend.behave("refuse")
    world.pause(0.2, 1.0)
    world.writer.order("delete")


def _storm(world: World) -> None:
    world.storm(50.0, ROTATIONS)


def _calm(world: World) -> None:
    world.storm(world.calm.storm_per_s)


def _storm_and_kill(world: World) -> None:
    world.storm(20.0)
    world.pause(0.2, 1.0)
    world.kill()
    _calm(world)


def _overflow(world: World) -> None:
    """More events than the kernel queues for one inotify instance, while the agent can't read them."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    world.agent.signal(SIGSTOP)
    for number in range(limit // 2 + 1000):
        name = world.logs / f"flood{number}.tmp"
        name.touch()
        name.unlink()


def _fill(directory: Callable[[World], Path]) -> Callable[[World], None]:
    def inject(world: World) -> None:
        ballast = directory(world) / "ballast"
        with ballast.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass

    return inject


def _empty(directory: Callable[[World], Path]) -> Callable[[World], None]:
    def heal(world: World) -> None:
        (directory(world) / "ballast").unlink()
        _backend_healthy(world)

    return heal


def _state(world: World) -> Path:
    return world.data_dir


def _spool(world: World) -> Path:
    return world.spool_dir


def _fill_spool_while_down(world: World) -> None:
    world.backend.behave("refuse")
    _fill(_spool)(world)


def _read_only_start(world: World) -> None:
    """A filesystem with open files can't be made read-only, so it happens while the agent is away."""
    world.kill()
    world.mounted.at(world.data_dir).remount("ro")
    world.agent.start()


def _read_write(world: World) -> None:
    if world.agent.running:
        world.agent.kill()
    world.mounted.at(world.data_dir).remount("rw")
    world.start()


def _lose_power(world: World) -> None:
    world.kill()
    world.mounted.lose_power()


def _lose_power_while_spooling(world: World) -> None:
    world.backend.behave("refuse")
    world.pause(0.5, 2.0)
    _lose_power(world)


def _flip_bits(paths: list[Path], world: World, count: int) -> None:
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


def _database_files(world: World) -> list[Path]:
    return sorted(path for path in world.data_dir.iterdir() if path.is_file() and ".db" in path.name)


def _kill_before_damage(world: World) -> None:
    """What the ledger had said up to now has been said, even if it is damaged now."""
    world.kill()
    world.judge.read_ledger()


def _flip_in_database(world: World) -> None:
    _kill_before_damage(world)
    _flip_bits(_database_files(world), world, 20)


def _truncate_database(world: World) -> None:
    _kill_before_damage(world)
    for path in _database_files(world):
        os.truncate(path, world.rng.randrange(path.stat().st_size + 1))


def _delete_database(world: World) -> None:
    _kill_before_damage(world)
    for path in _database_files(world):
        path.unlink()


def _spool_then(damage: Callable[[World, list[Path]], None]) -> Callable[[World], None]:
    def inject(world: World) -> None:
        world.backend.behave("refuse")
        world.pause(1.0, 3.0)
        world.kill()
        damage(world, sorted(path for path in world.spool_dir.rglob("*") if path.is_file()))

    return inject


def _flip_in_spool(world: World, segments: list[Path]) -> None:
    _flip_bits(segments, world, 3)


def _truncate_spool(world: World, segments: list[Path]) -> None:
    for path in segments:
        os.truncate(path, world.rng.randrange(path.stat().st_size + 1))


def _back_to_normal(world: World) -> None:
    world.start()
    world.backend.behave()


def _one_watch_only(world: World) -> None:
    """In a user namespace of its own the agent may have a single inotify watch; the rest must be polled."""
    world.kill()
    script = 'echo 1 > /proc/sys/user/max_inotify_watches; exec "$@"'
    world.agent.wrapper = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    world.start()


def _all_watches(world: World) -> None:
    world.kill()
    world.agent.wrapper = []
    world.start()


def _can_limit_watches() -> bool:
    check = "echo 1 > /proc/sys/user/max_inotify_watches"
    return subprocess.run(["unshare", "-U", "-r", "sh", "-c", check], check=False, capture_output=True).returncode == 0


FAULTS = [
    Fault("kill -9", _kill, _start, hold_s=(0.0, 0.3)),
    Fault("kill -9 while starting", _kill_while_starting, _nothing),
    Fault("stop and start", _stop, _start, hold_s=(0.0, 1.0)),
    Fault("SIGSTOP", _freeze, _thaw),
    Fault("backend refuses", _backend("refuse"), _backend_healthy),
    Fault("backend slow", _backend("slow", delay_s=0.3), _backend_healthy),
    Fault("backend stalls", _backend("stall"), _backend_healthy),
    Fault("backend 429", _backend("status", status=429, retry_after_s=0.2), _backend_healthy),
    Fault("backend 500", _backend("status", status=500, share=0.7), _backend_healthy),
    Fault("backend 413", _backend("too_large", max_bytes=2000), _backend_healthy),
    Fault("stored, then reset", _backend("stored_then_reset", share=0.5), _backend_healthy),
    Fault("half an answer", _backend("half_answer", share=0.5), _backend_healthy),
    Fault("connection cut in the body", _backend("cut", share=0.7), _backend_healthy),
    Fault("backend down, agent killed", _down_and_killed, _backend_healthy),
    Fault("backend down, files deleted", _down_and_deleted, _backend_healthy),
    Fault("rotation storm 50/s", _storm, _calm, hold_s=(1.0, 3.0)),
    Fault("rotation storm, kill -9", _storm_and_kill, _start, hold_s=(0.0, 0.3)),
    Fault("inotify queue overflow", _overflow, _thaw, hold_s=(0.0, 0.2)),
    Fault("inotify watch limit 1", _one_watch_only, _all_watches, hold_s=(1.0, 3.0)),
    Fault("database bit flips", _flip_in_database, _start, hold_s=(0.0, 0.2), repeats=True),
    Fault("database truncated", _truncate_database, _start, hold_s=(0.0, 0.2), repeats=True),
    Fault("database deleted", _delete_database, _start, hold_s=(0.0, 0.2), repeats=True),
    Fault("spool bit flips", _spool_then(_flip_in_spool), _back_to_normal, hold_s=(0.0, 0.2), destroys=True),
    Fault("spool truncated", _spool_then(_truncate_spool), _back_to_normal, hold_s=(0.0, 0.2), destroys=True),
    Fault("disk full: database", _fill(_state), _empty(_state), hold_s=(1.0, 4.0), disks=True),
    Fault("disk full: spool", _fill_spool_while_down, _empty(_spool), hold_s=(1.0, 4.0), disks=True),
    Fault("power loss", _lose_power, _start, hold_s=(0.0, 0.2), disks=True, repeats=True),
    Fault(
        "power loss, backend down",
        _lose_power_while_spooling,
        _back_to_normal,
        hold_s=(0.0, 0.2),
        disks=True,
        repeats=True,
    ),
    Fault("read-only at start", _read_only_start, _read_write, hold_s=(1.0, 3.0), disks=True),
]


def usable(disks: bool) -> list[Fault]:
    """The faults this machine can have."""
    left_out = set() if _can_limit_watches() else {"inotify watch limit 1"}
    return [fault for fault in FAULTS if (disks or not fault.disks) and fault.name not in left_out]
