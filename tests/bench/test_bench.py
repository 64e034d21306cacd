"""The bench itself: each part once, short, with what arrived checked. Figures are printed, never asserted."""

import json

import pytest

from tests.bench.workloads import LANES
from tests.support.programs import run_program


@pytest.mark.requires(tools=["zstd"])
def test_every_figure_of_the_bench_stands_on_verified_runs() -> None:
    options = ["--json", "--bytes", "2MiB", "--seconds", "1", "--files", "20"]
    found = json.loads(run_program("tests.bench", *options))
    assert [(result["lane"], result["sink"]) for result in found["throughput"]] == [
        (lane, sink) for lane in LANES for sink in ("blackhole", "http")
    ]
    assert all(result["usage"]["user_s"] > 0 for result in found["throughput"])
    assert len(found["daemon"]) == 4


def test_every_figure_of_the_spools_bench_stands_on_verified_runs() -> None:
    options = ["--json", "--bytes", "8MiB", "--seconds", "1", "--rounds", "1", "--side-seconds", "2"]
    drained, cost = json.loads(run_program("tests.bench.spool", *options))
    assert drained["megabytes"] > 8
    assert drained["bare_wire_megabytes"] > 4
    assert len(drained["rss_mb"]) == 8
    assert [len(cost["direct"]), len(cost["spooling"])] == [1, 1]
