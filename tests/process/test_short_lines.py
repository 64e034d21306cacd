"""A log of very short lines that match nothing holds up nobody, whatever the pattern."""

import time
from pathlib import Path

import pytest

from hostagent.clock import Clock
from hostagent.hookspecs import Wiring
from hostagent.model import Batch, Text
from hostagent.plugins import build_plugin_manager, collect_parts

CHUNK_BYTES = 512 * 1024
# Looked at line by line it is half a second; from every line to the end of its slice it was eight.
BEARABLE_S = 4.0


@pytest.mark.parametrize(
    "line", [b"\n", b"x\n", b"- - - [\n", b"x" * 32 + b"\n"], ids=["empty", "x", "dashes", "longer"]
)
def test_a_chunk_of_short_lines_is_parsed_in_bearable_time(line: bytes, tmp_path: Path) -> None:
    component = collect_parts(build_plugin_manager()).parsers["regex"]
    pattern = r'^([^ ]*) [^ ]* (?P<a>[^ ]*) \[(?P<b>[^\]]*)\] "([^"]*)"$'
    parser = component.build(component.options(pattern=pattern), Wiring("regex", Clock(), tmp_path))
    data = line * (CHUNK_BYTES // len(line))
    began_s = time.thread_time()
    _, unparsed = parser.parse(Batch(rows=-1, constants={}, text=Text(("message",), data, (b"\n",))))
    assert time.thread_time() - began_s < BEARABLE_S
    assert unparsed == data.count(b"\n")
