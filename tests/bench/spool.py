"""`python -m tests.bench.spool`: draining a full spool, memory beside it, and what spooling costs.

`drain` fills a spool to its bound with logs that hardly compress, kills and restarts the agent on it, and lets it
deliver; beside it stands a loop that only posts the same blocks to the same kind of receiver. `cost` is CPU per
megabyte of log with the backend down, by turns with direct delivery. Exit code 1 when a line was lost, repeated or out
of order.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.bench.__main__ import names, size
from tests.bench.drain import Drain, drain
from tests.bench.spool_cost import Cost, cost

PARTS = ("drain", "cost")
VERIFIED = "count, order, content"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.spool", description=__doc__)
    parser.add_argument("--only", type=names(PARTS), default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--bytes", type=size, default=2 << 30, help="spool.max_bytes (default 2GiB)")
    parser.add_argument("--rate", type=float, default=10e6, help="log bytes a second for `cost`")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a turn of `cost`")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each kind")
    parser.add_argument("--side-seconds", type=float, default=15.0, help="how long the other output is watched alone")
    parser.add_argument("--directory", type=Path, help="where to work (default: a temporary directory)")
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    return parser.parse_args()


def say_drain(one: Drain) -> str:
    normal = one.rss_mb["direct delivery, peak"]
    memory = "; ".join(f"{phase} {mb:.0f} ({mb - normal:+.1f})" for phase, mb in one.rss_mb.items())
    return (
        f"drain of a spool of {one.spool_bytes / 2**30:.2f} GiB: {one.megabytes:.0f} MB of log "
        f"({one.wire_megabytes:.0f} MB on the wire) in {one.seconds:.1f} s: {one.rate:.0f} MB/s, "
        f"{one.megabytes / one.cpu_s:.0f} per CPU second of the agent, "
        f"{one.share_of_bare:.2f} of a bare loop ({one.bare_wire_megabytes / one.bare_seconds:.0f} MB/s on the wire)\n"
        f"the other output meanwhile, write to received: p50 {one.side_draining_ms[0]:.0f} ms, "
        f"p99 {one.side_draining_ms[1]:.0f} ms; alone p50 {one.side_alone_ms[0]:.0f} ms, "
        f"p99 {one.side_alone_ms[1]:.0f} ms\n"
        f"memory in MB (beside the peak of direct delivery): {memory}\n"
        f"ready {one.ready_s:.1f} s after kill -9 with the spool full ({one.verified})"
    )


def say_cost(one: Cost) -> str:
    def turns(kind: str) -> str:
        return ", ".join(f"{turn.ms_per_megabyte:.2f}" for turn in getattr(one, kind))

    return (
        f"at {one.megabytes_per_s:g} MB/s, CPU ms per MB of log: direct {turns('direct')}; spooling "
        f"{turns('spooling')}; spooling costs {one.ratio:.3f} of direct delivery ({one.verified})"
    )


def main() -> int:
    chosen = arguments()
    found: list[Drain | Cost] = []
    with tempfile.TemporaryDirectory(prefix="hostagent-bench.", dir=chosen.directory) as directory:
        if "drain" in chosen.only:
            found.append(drain(Path(directory) / "drain", chosen.bytes, chosen.side_seconds))
        if "cost" in chosen.only:
            found.append(cost(Path(directory) / "cost", chosen.rate, chosen.seconds, chosen.rounds))
    for one in found:
        if not chosen.json:
            print(say_drain(one) if isinstance(one, Drain) else say_cost(one), flush=True)
    if chosen.json:
        print(json.dumps(msgspec.to_builtins(found), indent=1))
    return 0 if all(one.verified == VERIFIED for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
