"""The disk under the agent's state fills up, loses power, turns read-only or dies: small filesystems of its own."""

from collections.abc import Callable
from pathlib import Path

from hostagent.state.durable import sync_directory
from tests.support.waiting import wait_for
from tests.torture.faults.fault import Fault, Hold, healthy, start, start_healthy
from tests.torture.world import World


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
        sync_directory(directory(world))  # or the next power cut brings it back

    return heal


def _state(world: World) -> Path:
    return world.data_dir


def _spool(world: World) -> Path:
    return world.spool_dir


def _fill_spool_while_down(world: World) -> None:
    world.backend.behave("refuse")
    _fill(_spool)(world)


def _empty_spool(world: World) -> None:
    _empty(_spool)(world)
    healthy(world)


def _read_only_start(world: World) -> None:
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


def _lose_power_but_not(directory: Callable[[World], Path]) -> Callable[[World], None]:
    """The kernel happened to write back one of the two and not the other, as it is free to do."""

    def inject(world: World) -> None:
        world.backend.behave("refuse")
        wait_for(lambda: any(world.spool_dir.rglob("*.seg")), "the spool to be used")
        world.pause(0.2, 1.0)
        world.kill()
        world.mounted.at(directory(world)).write_back()
        world.mounted.lose_power()

    return inject


def _turn_read_only(world: World) -> None:
    """What ext4 does with errors=remount-ro when it finds itself damaged: the agent's open files can't be written."""
    world.backend.behave(world.rng.choice(["refuse", "healthy"]))
    world.pause(0.2, 1.0)
    world.mounted.at(world.rng.choice([world.data_dir, world.spool_dir])).turn_read_only()


def _die(world: World) -> None:
    """The device is gone: every call that needs it answers EIO."""
    world.backend.behave(world.rng.choice(["refuse", "healthy"]))
    world.pause(0.2, 1.0)
    world.mounted.at(world.rng.choice([world.data_dir, world.spool_dir])).die()


def _another_boot(world: World) -> None:
    """The machine starts again with its disks repaired."""
    if world.agent.running:
        world.agent.kill()
    world.mounted.mount_again()
    start_healthy(world)


_AT_ONCE = (0.0, 0.2)
_ALL_OF_IT = Hold.AGENT | Hold.BACKEND | Hold.DISKS
FAULTS = [
    Fault("disk full: database", _fill(_state), _empty(_state), Hold.STATE, hold_s=(1.0, 4.0), disks=True),
    Fault(
        "disk full: spool",
        _fill_spool_while_down,
        _empty_spool,
        Hold.SPOOL | Hold.BACKEND,
        hold_s=(1.0, 4.0),
        disks=True,
    ),
    Fault("power loss", _lose_power, start, Hold.AGENT | Hold.DISKS, hold_s=_AT_ONCE, disks=True, repeats=True),
    Fault(
        "power loss, backend down",
        _lose_power_while_spooling,
        start_healthy,
        _ALL_OF_IT,
        hold_s=_AT_ONCE,
        disks=True,
        repeats=True,
    ),
    Fault(
        "power loss, database written back",
        _lose_power_but_not(_state),
        start_healthy,
        _ALL_OF_IT,
        hold_s=_AT_ONCE,
        disks=True,
    ),
    Fault(
        "power loss, spool written back",
        _lose_power_but_not(_spool),
        start_healthy,
        _ALL_OF_IT,
        hold_s=_AT_ONCE,
        disks=True,
        repeats=True,
    ),
    Fault("read-only at start", _read_only_start, _read_write, Hold.AGENT | Hold.STATE, hold_s=(1.0, 3.0), disks=True),
    Fault(
        "read-only while running",
        _turn_read_only,
        _another_boot,
        _ALL_OF_IT,
        hold_s=(0.5, 2.0),
        disks=True,
        repeats=True,
    ),
    Fault("disk dies while running", _die, _another_boot, _ALL_OF_IT, hold_s=(0.5, 2.0), disks=True),
]
