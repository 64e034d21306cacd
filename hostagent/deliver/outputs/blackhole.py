"""The output that goes nowhere: it acks everything and counts it.

For measuring what comes before it. It must not look at a body.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from hostagent.hookspecs import Wiring
from hostagent.model import Delivery, Verdict

ACKED = Verdict()


class BlackholeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to choose."""

    default_compression: ClassVar[str] = "none"


class BlackholeOutput:
    """Acks and forgets; `records` and `body_bytes` say how much."""

    def __init__(self) -> None:
        self.records = 0
        self.body_bytes = 0

    def send(self, delivery: Delivery) -> Verdict:
        self.records += delivery.records
        self.body_bytes += len(delivery.body)
        return ACKED

    def close(self) -> None:
        """Nothing is open."""


def build_blackhole(_options: BlackholeOptions, _wiring: Wiring) -> BlackholeOutput:
    """Build the output from its options."""
    return BlackholeOutput()
