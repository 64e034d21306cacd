"""Runs bench and torture as a person would: a program of this checkout, to its end."""

import subprocess
import sys

from tests.support.agent import CHECKOUT, agent_environment


def run_program(module: str, *words: str) -> str:
    """What `python -m` prints; it must end well."""
    run = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=CHECKOUT,
        env=agent_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr[-4000:]}"
    return run.stdout
