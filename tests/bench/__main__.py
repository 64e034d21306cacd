"""`python -m tests.bench`: all figures in one table, each beside `zstd -1` of the same bytes on the same machine."""

import argparse
import compileall
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.bench.lines_rate import LinesRate, lines_rate
from tests.bench.steady import Idle, Latency, Steady, idle, latency, steady
from tests.bench.throughput import SINKS, Result, measure, measure_peer
from tests.bench.workloads import LANES, write_file
from tests.support.agent import CHECKOUT

PARTS = ("throughput", "steady", "docker", "idle", "latency")
FULL_BYTES = 512 << 20
QUICK_BYTES = 16 << 20
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def size(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([kKmMgG]?)(?:i?[bB])?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; examples: 512MiB, 64m, 1000000")
    return int(found[1]) * UNITS[found[2].lower()]


def names(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        if unknown := [name for name in chosen if name not in allowed]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(allowed)}")
        return chosen

    return parse


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=(
            "Measures the agent from outside: files at full speed to a black hole and to an HTTP backend (zstd), "
            "10 MB/s and 100,000 docker-json lines/s for a while, 10,000 idle files, and how late a line arrives. CPU "
            "is user and system time of the agent's whole process tree, start-up included; the backend is another "
            "process, not counted."
        ),
    )
    parser.add_argument("--only", type=names(PARTS), default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--lanes", type=names(tuple(LANES)), default=list(LANES), help=f"of {', '.join(LANES)}")
    parser.add_argument("--sinks", type=names(SINKS), default=list(SINKS), help=f"of {', '.join(SINKS)}")
    parser.add_argument("--bytes", type=size, help="file size for each lane (default 512MiB)")
    parser.add_argument("--seconds", type=float, help="length of each run as a daemon (default 30)")
    parser.add_argument("--files", type=int, help="number of idle files (default 10000)")
    parser.add_argument(
        "--peer",
        metavar="COMMAND",
        help="another agent for the http sink, with {input} and {port}; stopped when nothing more arrives",
    )
    parser.add_argument("--quick", action="store_true", help="a short run that checks the bench more than the agent")
    parser.add_argument("--directory", type=Path, help="where to work (default: a temporary directory)")
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    chosen = parser.parse_args()
    chosen.bytes = chosen.bytes or (QUICK_BYTES if chosen.quick else FULL_BYTES)
    chosen.seconds = chosen.seconds or (3.0 if chosen.quick else 30.0)
    chosen.files = chosen.files or (300 if chosen.quick else 10_000)
    return chosen


HEADINGS = (
    f"{'lane':<12}{'sink':<11}{'agent':<11}{'MB/s':>8}{'MB/s':>8}{'k lines/s':>11}{'k lines/s':>11}{'peak':>8}"
    f"{'CPU s per':>11}{'zstd -1':>9}  checked\n"
    f"{'':<12}{'':<11}{'':<11}{'per CPU':>8}{'wall':>8}{'per CPU':>11}{'wall':>11}{'MB':>8}{'zstd -1 s':>11}{'MB/s':>9}"
)


def throughput_row(result: Result) -> str:
    cpu_s = result.usage.cpu_s
    return (
        f"{result.lane:<12}{result.sink:<11}{result.who:<11}{result.megabytes / cpu_s:>8.0f}"
        f"{result.megabytes / result.wall_s:>8.0f}{result.records / cpu_s / 1e3:>11.0f}"
        f"{result.records / result.wall_s / 1e3:>11.0f}{result.usage.peak_rss_bytes / 1e6:>8.0f}"
        f"{cpu_s / result.zstd_s:>11.2f}{result.megabytes / result.zstd_s:>9.0f}"
        f"  {result.problem.upper() or result.verified}"
    )


def say(figure: Steady | LinesRate | Idle | Latency) -> str:
    match figure:
        case Steady():
            return (
                f"{figure.megabytes_per_s:g} MB/s for {figure.stretch.wall_s:.0f} s: "
                f"{figure.stretch.cpu_percent:.1f} % of a core, RSS {figure.stretch.peak_rss_bytes / 1e6:.0f} MB "
                f"({figure.verified})"
            )
        case LinesRate():
            return (
                f"{figure.lines_per_s:.0f} {figure.lane} lines/s for {figure.stretch.wall_s:.0f} s: "
                f"{figure.stretch.cpu_s / figure.stretch.wall_s:.3f} of a core, "
                f"RSS {figure.stretch.peak_rss_bytes / 1e6:.0f} MB ({figure.verified})"
            )
        case Idle():
            return (
                f"{figure.files} idle files for {figure.stretch.wall_s:.0f} s: {figure.stretch.cpu_percent:.2f} % of a "
                f"core, {figure.bytes_per_file / 1024:.2f} KiB per file (RSS {figure.rss_bytes / 1e6:.1f} MB, "
                f"{figure.rss_one_file_bytes / 1e6:.1f} MB with one file; {figure.verified})"
            )
        case Latency():
            return (
                f"write to received at {figure.megabytes_per_s:g} MB/s: p50 {figure.p50_ms:.0f} ms, "
                f"p99 {figure.p99_ms:.0f} ms, worst {figure.worst_ms:.0f} ms of {figure.lines} lines "
                f"({figure.verified})"
            )


def run_throughput(chosen: argparse.Namespace, root: Path, show: bool) -> list[Result]:
    results = []
    if show:
        print(f"{chosen.bytes / 1e6:.0f} MB per lane, run --once\n{HEADINGS}", flush=True)
    for lane_name in chosen.lanes:
        lane = LANES[lane_name]
        path = root / f"{lane_name}.log"
        write_file(lane, path, chosen.bytes)
        for sink in [*chosen.sinks, *(["peer"] if chosen.peer else [])]:
            scratch = root / f"{lane_name}-{sink}"
            scratch.mkdir()
            if sink == "peer":
                results.append(measure_peer(lane, path, scratch, chosen.peer))
            else:
                results.append(measure(lane, sink, path, scratch))
            if show:
                print(throughput_row(results[-1]), flush=True)
        path.unlink()
    return results


def main() -> int:
    chosen = arguments()
    show = not chosen.json
    results: list[Result] = []
    figures: list[Steady | LinesRate | Idle | Latency] = []
    # What is installed has its bytecode; compiling at every start is no part of what an agent costs.
    compileall.compile_dir(CHECKOUT / "hostagent", quiet=1)
    with tempfile.TemporaryDirectory(prefix="hostagent-bench.", dir=chosen.directory) as directory:
        root = Path(directory)
        if "throughput" in chosen.only:
            results = run_throughput(chosen, root, show)
        daemons: dict[str, Callable[[], Steady | LinesRate | Idle | Latency]] = {
            "steady": lambda: steady(root / "steady", 10e6, chosen.seconds),
            "docker": lambda: lines_rate(root / "docker", "docker-json", 100_000, chosen.seconds),
            "idle": lambda: idle(root / "idle", chosen.files, chosen.seconds),
            "latency": lambda: latency(root / "latency", 1e6, chosen.seconds),
        }
        for part, once in daemons.items():
            if part in chosen.only:
                figures.append(once())
                if show:
                    print(say(figures[-1]), flush=True)
    if chosen.json:
        print(
            json.dumps({"throughput": msgspec.to_builtins(results), "daemon": msgspec.to_builtins(figures)}, indent=1)
        )
    wrong = [result for result in results if result.problem]
    wrong_figures = [figure for figure in figures if figure.verified != "count, order, content"]
    return 1 if wrong or wrong_figures else 0


if __name__ == "__main__":
    sys.exit(main())
