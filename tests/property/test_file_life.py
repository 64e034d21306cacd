"""Every line exactly once, whatever happens to the file and the agent.

HOSTAGENT_PROPERTY_EXAMPLES and HOSTAGENT_PROPERTY_STEPS make it as long as wanted; with HOSTAGENT_PROPERTY_SHRINK a
failure is shrunk, which takes minutes, since every attempt starts an agent.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.file_life import FileLife
from tests.support.backend import Backend

EXAMPLES = int(os.environ.get("HOSTAGENT_PROPERTY_EXAMPLES", "0"))
STEPS = int(os.environ.get("HOSTAGENT_PROPERTY_STEPS", "15"))
LONG = EXAMPLES > 0
SHRINK = "HOSTAGENT_PROPERTY_SHRINK" in os.environ


@pytest.mark.timeout(0 if LONG else 300)
def test_every_line_arrives_exactly_once(tmp_path: Path) -> None:
    with Backend(tmp_path / "backend") as backend:
        machine = type("FileLifeHere", (FileLife,), {"backend": backend})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES or 40,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=not LONG,  # the short run is the same everywhere
                database=None,
                phases=list(Phase) if SHRINK else [Phase.generate],
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            ),
        )
