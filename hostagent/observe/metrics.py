"""Samples to Prometheus' text format, and the process's own figures from /proc.

Takes what the daemon counted and writes the page; it counts nothing itself. A sample whose name or labels are not in
the catalogue is a mistake in the agent and raised as one, so that nothing undocumented is ever exposed.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hostagent.observe.catalogue import BY_NAME, CATALOGUE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


class Sample(NamedTuple):
    """One value of a metric; `labels` in the catalogue's order."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class ProcessFigures(NamedTuple):
    """What the kernel says about this process."""

    cpu_s: float
    rss_bytes: int
    open_fds: int
    max_fds: int
    threads: int
    start_s: float


def render(samples: Iterable[Sample]) -> str:
    """The page: each family once, in the catalogue's order, left out where it has no sample."""
    lines_by_name: dict[str, list[str]] = {}
    for sample in samples:
        metric = BY_NAME.get(sample.name)
        if metric is None or len(metric.labels) != len(sample.labels):
            raise ValueError(f"the metric {sample.name}{sample.labels} is not in the catalogue")
        lines_by_name.setdefault(sample.name, []).append(_line(sample, metric.labels))
    page: list[str] = []
    for metric in CATALOGUE:
        if metric.name in lines_by_name:
            page += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
            page += lines_by_name[metric.name]
    return "\n".join(page) + "\n"


def _line(sample: Sample, names: tuple[str, ...]) -> str:
    pairs = [f'{name}="{_text(value)}"' for name, value in zip(names, sample.labels, strict=True)]
    labels = "{" + ",".join(pairs) + "}" if pairs else ""
    value = float(sample.value)
    return f"{sample.name}{labels} {int(value) if value.is_integer() else repr(value)}"


def _text(value: str) -> str:
    return value.translate(_ESCAPES).encode(errors="replace").decode()


def read_process() -> ProcessFigures:
    """Figures of this process; all from files of /proc that need no privilege."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/stat", "rb") as file:
        # The second field is the program's name in parentheses and may hold anything, so count from its end.
        fields = file.read().rpartition(b")")[2].split()
    with open("/proc/stat", "rb") as file:
        boot_s = next((int(line.split()[1]) for line in file if line.startswith(b"btime ")), 0)
    return ProcessFigures(
        cpu_s=usage.ru_utime + usage.ru_stime,
        rss_bytes=int(fields[21]) * resource.getpagesize(),
        open_fds=len(os.listdir("/proc/self/fd")) - 1,
        max_fds=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        threads=int(fields[17]),
        start_s=boot_s + int(fields[19]) / os.sysconf("SC_CLK_TCK"),
    )


def process_samples(figures: ProcessFigures) -> list[Sample]:
    """The `process_*` family."""
    values: Mapping[str, float] = {
        "process_cpu_seconds_total": figures.cpu_s,
        "process_resident_memory_bytes": figures.rss_bytes,
        "process_open_fds": figures.open_fds,
        "process_max_fds": figures.max_fds,
        "process_threads": figures.threads,
        "process_start_time_seconds": figures.start_s,
    }
    return [Sample(name, value) for name, value in values.items()]
