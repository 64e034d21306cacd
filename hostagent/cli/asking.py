"""Hands a request in at the data directory and waits for its result, if an agent is there to give one.

Shared by the commands that have something sent again. A request that is not answered in time stays: the agent does it
when it can.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Literal

import click
import msgspec

from hostagent.cli import show
from hostagent.clock import Clock
from hostagent.state.lock import holder_of
from hostagent.state.requests import Request, put_request, take_result

PACE_S = 0.1


class Answer(msgspec.Struct, frozen=True):
    """`done`: the agent has done it; `waiting`: it runs and has not; `left`: no agent runs, the next one does it."""

    state: Literal["done", "waiting", "left"]
    sent: int = 0
    failures: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the exit code should say so."""
        return self.state == "waiting" or bool(self.failures)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {"state": self.state, "sent": self.sent, "failures": self.failures}

    def tell(self, things: str) -> None:
        """For people."""
        if self.state == "left":
            click.echo(f"no agent is running: the {things} are sent when one starts")
        elif self.state == "waiting":
            show.trouble(
                f"the agent has not sent the {things} yet",
                "it goes on trying; `hostagent status` says how the output is",
            )
        else:
            click.echo(f"{show.count(self.sent)} {things} were sent again")
        for failure in self.failures:
            show.trouble(f"not sent: {failure}")


def hand_in(state: Path, request: Request, wait_s: float) -> Answer:
    """Put a request; what became of it."""
    clock, never = Clock(), threading.Event()
    path = put_request(state, request)
    until_s = clock.monotonic_s() + wait_s
    while True:
        result = take_result(path)
        if result is not None:
            return Answer("done", result.sent, result.failures)
        if holder_of(state) is None:
            return Answer("left")
        if clock.monotonic_s() >= until_s:
            return Answer("waiting")
        clock.wait(never, PACE_S)
