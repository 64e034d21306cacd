"""The short version: every fault this machine can have, once, with a fixed seed."""

import subprocess
import sys

import pytest

from tests.support.agent import agent_environment
from tests.support.backend import CHECKOUT


@pytest.mark.timeout(600)
def test_every_fault_once_costs_no_line() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.torture", "--seed", "7", "--each", "1", "--rate", "500000"],
        cwd=CHECKOUT,
        env=agent_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr[-4000:]}"
