"""The backend refuses, dawdles, lies about what it stored; or is away while the agent or its files go, too."""

from collections.abc import Callable
from typing import Any

from tests.torture.faults.fault import Fault, Hold, healthy
from tests.torture.world import World


def _backend(kind: str, **options: Any) -> Callable[[World], None]:  # noqa: ANN401 - fields of Behaviour
    def inject(world: World) -> None:
        world.backend.behave(kind, **options)

    return inject


def _down_and_killed(world: World) -> None:
    world.backend.behave("refuse")
    world.pause(0.2, 1.0)
    world.kill()
    world.pause(0.0, 0.5)
    world.start()


def _too_large_and_killed(world: World) -> None:
    """The backend has stored some pieces of a block, and takes blocks as a whole by the time it comes again."""
    world.backend.behave("too_large", max_bytes=500)
    world.pause(0.2, 1.0)
    world.kill()
    world.backend.behave()
    world.start()


def _down_and_deleted(world: World) -> None:
    """Live files vanish while nothing can be delivered: the agent's open descriptors and its spool are all there is."""
    world.backend.behave("refuse")
    world.pause(0.2, 1.0)
    world.writer.order("delete")


FAULTS = [
    Fault("backend refuses", _backend("refuse"), healthy, Hold.BACKEND),
    Fault("backend slow", _backend("slow", delay_s=0.3), healthy, Hold.BACKEND),
    Fault("backend stalls", _backend("stall"), healthy, Hold.BACKEND),
    Fault("backend 429", _backend("status", status=429, retry_after_s=0.2), healthy, Hold.BACKEND),
    Fault("backend 500", _backend("status", status=500, share=0.7), healthy, Hold.BACKEND),
    Fault("backend 413", _backend("too_large", max_bytes=2000), healthy, Hold.BACKEND),
    Fault("backend 413, agent killed", _too_large_and_killed, healthy, Hold.BACKEND | Hold.AGENT),
    Fault("stored, then reset", _backend("stored_then_reset", share=0.5), healthy, Hold.BACKEND),
    Fault("half an answer", _backend("half_answer", share=0.5), healthy, Hold.BACKEND),
    Fault("connection cut in the body", _backend("cut", share=0.7), healthy, Hold.BACKEND),
    Fault("backend down, agent killed", _down_and_killed, healthy, Hold.BACKEND | Hold.AGENT),
    Fault(
        "backend down, files deleted",
        _down_and_deleted,
        healthy,
        Hold.BACKEND | Hold.LOAD | Hold.LINKS | Hold.PRESENCE,
    ),
]
