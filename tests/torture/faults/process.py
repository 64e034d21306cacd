"""The agent is killed, stopped, frozen or starved of watches."""

import subprocess
from pathlib import Path
from signal import SIGCONT, SIGSTOP

from tests.torture.faults.fault import Fault, Hold, nothing, start
from tests.torture.world import World


def _kill(world: World) -> None:
    world.kill()


def _kill_while_starting(world: World) -> None:
    for _ in range(3):
        world.kill()
        world.launch()
        world.pause(0.05, 0.6)


def _stop(world: World) -> None:
    world.stop()


def _freeze(world: World) -> None:
    world.agent.signal(SIGSTOP)


def _thaw(world: World) -> None:
    world.agent.signal(SIGCONT)


def _overflow(world: World) -> None:
    """More events than the kernel queues for one inotify instance, while the agent can't read them."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    world.agent.signal(SIGSTOP)
    for number in range(limit // 2 + 1000):
        name = world.logs / f"flood{number}.tmp"
        name.touch()
        name.unlink()


def _one_watch_only(world: World) -> None:
    """In a user namespace of its own the agent may have a single inotify watch; the rest must be polled."""
    script = 'echo 1 > /proc/sys/user/max_inotify_watches; exec "$@"'
    world.run_under("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")


def _all_watches(world: World) -> None:
    world.run_under()


def _no_watch_limits() -> str:
    check = "echo 1 > /proc/sys/user/max_inotify_watches"
    run = subprocess.run(["unshare", "-U", "-r", "sh", "-c", check], check=False, capture_output=True)
    return "" if run.returncode == 0 else "user namespaces with a watch limit of their own"


FAULTS = [
    Fault("kill -9", _kill, start, Hold.AGENT, hold_s=(0.0, 0.3)),
    Fault("kill -9 while starting", _kill_while_starting, nothing, Hold.AGENT),
    Fault("stop and start", _stop, start, Hold.AGENT, hold_s=(0.0, 1.0)),
    Fault("SIGSTOP", _freeze, _thaw, Hold.AGENT),
    Fault("inotify queue overflow", _overflow, _thaw, Hold.AGENT, hold_s=(0.0, 0.2)),
    Fault(
        "inotify watch limit 1", _one_watch_only, _all_watches, Hold.COMMAND, hold_s=(1.0, 3.0), lacks=_no_watch_limits
    ),
]
