"""Where a file's reading comes from: its target, and everything that was built for that target once.

Made where the stages are joined, and shared by all files of the target. It holds values and parts, and reads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hostagent.model import Scalar, Target
from hostagent.tail.finding.beneath import beneath, join
from hostagent.tail.ports import Chain, Lane


class Policy(NamedTuple):
    """What a source says about reading its files, beside the chain."""

    start_at: str
    flush_partial_after_s: float | None
    close_grace_s: float
    drop_page_cache: bool


class Origin:
    """A target with everything that was built for it once: chain, lanes, its records' constants. Its files share it.

    `served` tells whether the target ever had a file.
    """

    __slots__ = ("chain", "constants", "lanes", "policy", "served", "target")

    def __init__(
        self, target: Target, chain: Chain, lanes: tuple[Lane, ...], constants: Mapping[str, Scalar], policy: Policy
    ) -> None:
        self.target = target
        self.chain = chain
        self.lanes = lanes
        self.constants = constants
        self.policy = policy
        self.served = False

    def recorded(self, path: str) -> str:
        """What records say of a file found at this path of the host: where its writer sees it."""
        target = self.target
        shown = path if target.shown_root is None else join(target.shown_root, beneath(target.root, path))
        return shown.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
