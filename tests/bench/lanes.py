"""`python -m tests.bench.lanes`: what a chain and its encoder do with a file in memory, on one thread, with no output.

For whoever works on `hostagent/process/`: `python -m tests.bench` measures the whole agent, on the same logs. Each lane
reads chunk by chunk as the reader does, and the number of records that come out is checked. The last column is the time
as a share of what zstd level 1 needs for the same bytes in the same process.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import zstandard

from hostagent.clock import Clock
from hostagent.config.load import read_part, read_section
from hostagent.config.model import MultilineConfig, PartConfig, SourceConfig
from hostagent.daemon.memory import Memory
from hostagent.hookspecs import Wiring
from hostagent.model import Scalar
from hostagent.plugins import build_plugin_manager, collect_parts
from hostagent.process.chain import Chain, build_chain
from hostagent.process.ndjson import NdjsonEncoder
from tests.bench.workloads import LANES, Lane, write_file

CHUNK_BYTES = 512 * 1024
CONSTANTS: dict[str, Scalar] = {"host": "node-17.example.com", "path": "/var/log/shop/order-service.log"}


class NoOptions(msgspec.Struct):
    pass


def chain_of(lane: Lane) -> Chain:
    parts = collect_parts(build_plugin_manager())
    chosen = lane.source
    multiline = chosen.get("multiline")
    parse = chosen.get("parse")
    source = SourceConfig(
        name=lane.name,
        type="file",
        options=NoOptions(),
        format=read_part("framing", chosen["format"], parts.framings, lane.name),
        multiline=read_section(MultilineConfig, multiline, lane.name) if multiline else None,
        parse=read_part("parser", parse, parts.parsers, lane.name) if parse else None,
        processors=tuple(_processor(one, lane.name) for one in chosen.get("processors", ())),
        fields={"service": "order"},
    )
    return build_chain(source, parts, Wiring(lane.name, Clock(), Path("/nonexistent")))


def _processor(value: object, where: str) -> PartConfig:
    return read_part("processor", value, collect_parts(build_plugin_manager()).processors, where)


def read_through(chain: Chain, data: bytes) -> int:
    """Records in the file, read in chunks from position to position."""
    encoder = NdjsonEncoder()
    position = records = 0
    while position < len(data):
        chunk = data[position : position + CHUNK_BYTES]
        done = chain.process(chunk, CONSTANTS, final=len(chunk) < CHUNK_BYTES)
        records += sum(encoder.encode(batch, 0).records for batch in done.batches)
        position += done.consumed
    return records


def best_s(work: Callable[[], object], rounds: int) -> float:
    taken = []  # CPU time: other programs on the machine must not show
    for _ in range(rounds):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return min(taken)


def compress(data: bytes) -> None:
    compressor = zstandard.ZstdCompressor(level=1)
    for position in range(0, len(data), CHUNK_BYTES):
        compressor.compress(data[position : position + CHUNK_BYTES])


def run(lane: Lane, size: int, rounds: int) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "log"
        write_file(lane, path, size)
        data = path.read_bytes()
        expected = sum(1 for _ in lane.expected(path))
    chain = chain_of(lane)
    assert read_through(chain, data) == expected, f"{lane.name}: records were lost or made up"
    taken_s = best_s(lambda: read_through(chain, data), rounds)
    share = taken_s / best_s(lambda: compress(data), rounds)
    lines = data.count(b"\n")
    return f"{lane.name:<14}{len(data) / taken_s / 1e6:>10.0f}{lines / taken_s / 1e6:>14.2f}{share:>16.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lanes")
    parser.add_argument("lanes", nargs="*", default=list(LANES), help=f"of {', '.join(LANES)}")
    parser.add_argument("--mib", type=int, default=32, help="size of each lane's file")
    parser.add_argument("--rounds", type=int, default=7, help="the best of so many")
    chosen = parser.parse_args()
    Memory()  # as in the agent: without it page faults take as much time as the work
    print(f"{'lane':<14}{'MB/s':>10}{'M lines/s':>14}{'of zstd -1':>16}")
    for name in chosen.lanes:
        print(run(LANES[name], chosen.mib << 20, chosen.rounds), flush=True)


if __name__ == "__main__":
    main()
