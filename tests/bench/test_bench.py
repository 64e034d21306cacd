"""The bench itself: each part once, short, with what arrived checked. Figures are printed, never asserted."""

import json
import subprocess
import sys

import pytest

from tests.bench.workloads import LANES
from tests.support.agent import agent_environment
from tests.support.backend import CHECKOUT


@pytest.mark.requires(tools=["zstd"])
def test_every_figure_of_the_bench_stands_on_verified_runs() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--json", "--bytes", "2MiB", "--seconds", "1", "--files", "20"],
        cwd=CHECKOUT,
        env=agent_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    found = json.loads(run.stdout)
    assert [(result["lane"], result["sink"]) for result in found["throughput"]] == [
        (lane, sink) for lane in LANES for sink in ("blackhole", "http")
    ]
    assert all(result["usage"]["user_s"] > 0 for result in found["throughput"])
    assert len(found["daemon"]) == 4


def test_every_figure_of_the_spools_bench_stands_on_verified_runs() -> None:
    options = ["--json", "--bytes", "8MiB", "--seconds", "1", "--rounds", "1", "--side-seconds", "2"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench.spool", *options],
        cwd=CHECKOUT,
        env=agent_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    drained, cost = json.loads(run.stdout)
    assert drained["megabytes"] > 8
    assert drained["bare_wire_megabytes"] > 4
    assert len(drained["rss_mb"]) == 8
    assert [len(cost["direct"]), len(cost["spooling"])] == [1, 1]
