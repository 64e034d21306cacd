"""The short version: every fault this machine can have, once, with a fixed seed; and a short outage."""

import subprocess
import sys

import pytest

from tests.support.agent import agent_environment
from tests.support.backend import CHECKOUT


@pytest.mark.timeout(600)
def test_every_fault_once_costs_no_line() -> None:
    run = subprocess.run(
        # Damaged spools stand in the table with what is unaccounted there.
        [sys.executable, "-m", "tests.torture", "--seed", "7", "--each", "1", "--rate", "500000", "--skip", "spool "],
        cwd=CHECKOUT,
        env=agent_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr[-4000:]}"


@pytest.mark.timeout(300)
def test_an_outage_with_kills_and_deleted_files_repeats_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.torture.outage", "--minutes", "0.7", "--rate", "4e6", "--kill-every", "5"],
        cwd=CHECKOUT,
        env=agent_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr[-4000:]}"
