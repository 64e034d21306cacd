"""The short version: every fault once, with a fixed seed; and a short outage. Whole runs are for `python -m`."""

import subprocess
import sys

import pytest

from tests.support.agent import CHECKOUT, agent_environment
from tests.support.programs import run_program
from tests.torture.faults import left_out

PARTS = 3


def test_every_fault_can_be_had_here() -> None:
    if missing := left_out():
        pytest.skip("; ".join(f"{fault}: needs {reason}" for fault, reason in missing.items()))


# A copy of the mounts, which other tests make, would keep a disk of this one in use after its fault has unmounted it.
@pytest.mark.alone
@pytest.mark.timeout(600)
def test_every_fault_once_costs_no_line() -> None:
    """In worlds of their own side by side, for most of the time they wait."""
    words = [sys.executable, "-m", "tests.torture", "--seed", "7", "--each", "1", "--rate", "300000"]
    runs = [
        subprocess.Popen(
            [*words, "--part", f"{part}/{PARTS}"],
            cwd=CHECKOUT,
            env=agent_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for part in range(1, PARTS + 1)
    ]
    try:
        outputs = [run.communicate()[0] for run in runs]
    finally:
        for run in runs:
            run.terminate()
            run.wait(30)
    assert [run.returncode for run in runs] == [0] * PARTS, "\n".join(outputs)


@pytest.mark.timeout(300)
def test_an_outage_with_kills_and_deleted_files_repeats_nothing() -> None:
    run_program("tests.torture.outage", "--minutes", "0.7", "--rate", "2e6", "--kill-every", "5")
