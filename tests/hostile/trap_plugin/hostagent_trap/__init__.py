"""A plugin as bad as they come: a processor that fails on certain lines, and an output that never answers."""

import os
import threading
from collections.abc import Mapping

import msgspec

from hostagent.hookspecs import Component, Output, Processor, hookimpl
from hostagent.model import Batch, Delivery, Verdict


class TrapOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Fail on records with this text; if `only_if` is given, only while that file exists."""

    on: str = "BOOM"
    only_if: str = ""


class Trap:
    """Fails in a way no contract foresees."""

    def __init__(self, options: TrapOptions) -> None:
        self._options = options

    def process(self, batch: Batch) -> list[Batch]:
        data = batch.text.data if batch.text is not None else repr(batch.cells or batch.records).encode()
        if self._options.on.encode() in data and (not self._options.only_if or os.path.exists(self._options.only_if)):
            raise ZeroDivisionError("the trap has snapped")
        return [batch]


class NoOptions(msgspec.Struct, frozen=True):
    """None."""


class Abyss:
    """Takes a delivery and is never heard of again."""

    def send(self, delivery: Delivery) -> Verdict:
        threading.Event().wait()
        return Verdict()

    def close(self) -> None:
        threading.Event().wait()


@hookimpl
def hostagent_register_processors() -> Mapping[str, Component[Processor]]:
    return {"trap": Component(TrapOptions, lambda options, _wiring: Trap(options))}


@hookimpl
def hostagent_register_outputs() -> Mapping[str, Component[Output]]:
    return {"abyss": Component(NoOptions, lambda _options, _wiring: Abyss())}
