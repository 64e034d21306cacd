"""The page of metrics is what Prometheus reads, and holds nothing undocumented."""

import re
from pathlib import Path

import pytest

from hostagent.observe.catalogue import CATALOGUE, Metric
from hostagent.observe.metrics import Sample, process_samples, read_process, render

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_families_come_once_in_order_with_escaped_labels() -> None:
    page = render(
        [
            Sample("hostagent_output_retries_total", 3, ('b\\\n"x',)),
            Sample("hostagent_ready", 1),
            Sample("hostagent_output_retries_total", 2.5, ("a",)),
        ]
    )
    assert page.split("\n") == [
        "# HELP hostagent_ready 1 once every source is being watched, until the agent stops.",
        "# TYPE hostagent_ready gauge",
        "hostagent_ready 1",
        "# HELP hostagent_output_retries_total Requests that were repeated.",
        "# TYPE hostagent_output_retries_total counter",
        'hostagent_output_retries_total{output="b\\\\\\n\\"x"} 3',
        'hostagent_output_retries_total{output="a"} 2.5',
        "",
    ]


@pytest.mark.parametrize("sample", [Sample("hostagent_new", 1), Sample("hostagent_ready", 1, ("extra",))])
def test_what_is_not_in_the_catalogue_is_never_exposed(sample: Sample) -> None:
    with pytest.raises(ValueError, match="not in the catalogue"):
        render([sample])


def test_the_process_figures_are_the_kernels() -> None:
    figures = read_process()
    assert 5_000_000 < figures.rss_bytes < 10**10
    assert 0 < figures.cpu_s < 10**6
    assert 3 <= figures.open_fds <= figures.max_fds
    assert figures.threads >= 1
    boot_s = float(Path("/proc/stat").read_text().split("btime ")[1].split()[0])
    assert figures.start_s >= boot_s
    assert "process_resident_memory_bytes " in render(process_samples(figures))


def test_names_follow_the_conventions() -> None:
    for metric in CATALOGUE:
        assert re.fullmatch(r"(hostagent|process)(_[a-z0-9]+)+", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert not set(metric.labels) & {"path", "file", "target", "reason"}
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_every_metric_is_in_the_documentation(metric: Metric) -> None:
    row = next((line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{metric.name}` |")), "")
    assert row, f"docs/metrics.md has no row for {metric.name}"
    assert f"| {metric.kind} |" in row
    for label in metric.labels:
        assert f"`{label}`" in row


def test_the_documentation_has_no_metric_that_is_gone() -> None:
    told = set(re.findall(r"^\| `([a-z0-9_]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert told == {metric.name for metric in CATALOGUE}
