"""Every line exactly once and nothing in the ledger in vain, whatever is done to names between two looks of the agent.

HOSTAGENT_PROPERTY_EXAMPLES makes it as long as wanted, HOSTAGENT_PROPERTY_SEED begins elsewhere; a failure names its
seed and tells the life step by step.
"""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.tail.files.identity import ignore_lease_signal
from tests.property.rotation_life import World

EXAMPLES = int(os.environ.get("HOSTAGENT_PROPERTY_EXAMPLES", "150"))
FIRST_SEED = int(os.environ.get("HOSTAGENT_PROPERTY_SEED", "0"))
STEPS = int(os.environ.get("HOSTAGENT_PROPERTY_STEPS", "14"))


@pytest.fixture(autouse=True)
def _writers_are_known() -> Iterator[None]:
    """As in the agent: else nobody can tell whether a file has a writer."""
    before = signal.getsignal(signal.SIGIO)
    ignore_lease_signal()
    yield
    signal.signal(signal.SIGIO, before)


@pytest.mark.timeout(0 if EXAMPLES > 150 else 300)
def test_every_line_arrives_exactly_once_and_nothing_is_called_lost(tmp_path: Path) -> None:
    for seed in range(FIRST_SEED, FIRST_SEED + EXAMPLES):
        world = World(tmp_path / str(seed), random.Random(seed))
        try:
            world.live_on(STEPS)
        except BaseException as error:
            error.add_note(f"seed {seed}:\n" + "\n".join(world.trace))
            raise
        finally:
            world.end()
