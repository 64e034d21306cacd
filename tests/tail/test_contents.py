"""Reading plain and gzip files at offsets of their decoded bytes."""

import gzip
import os
import random
import resource
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.clock import Clock
from hostagent.hookspecs import Wiring
from hostagent.tail.builtin import NoOptions, hostagent_register_tailers
from hostagent.tail.files.contents import FileContent, GzipContent

OpenGzip = Callable[[bytes], GzipContent]


@pytest.fixture
def open_gzip(tmp_path: Path) -> Iterator[OpenGzip]:
    opened: list[GzipContent] = []

    def open_it(stored: bytes) -> GzipContent:
        path = tmp_path / "app.log.gz"
        path.write_bytes(stored)
        opened.append(GzipContent(os.open(path, os.O_RDONLY)))
        return opened[-1]

    yield open_it
    for content in opened:
        content.close()


def log_lines(count: int, seed: int = 1) -> bytes:
    rng = random.Random(seed)
    return b"".join(b"%d %032x line\n" % (number, rng.getrandbits(128)) for number in range(count))


def read_all(content: GzipContent, size: int = 10_000) -> bytes:
    data = b""
    while piece := content.read(len(data), size):
        data += piece
    return data


def test_a_plain_file_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "app.log").write_bytes(b"0123456789")
    content = FileContent(os.open(tmp_path / "app.log", os.O_RDONLY))
    assert content.read(3, 4) == b"3456"
    assert content.read(8, 100) == b"89"
    assert content.read(100, 1) == b""
    content.close()


def test_gzip_is_read_front_to_back(open_gzip: OpenGzip) -> None:
    data = log_lines(50_000)
    content = open_gzip(gzip.compress(data))
    assert read_all(content, 512 * 1024) == data
    assert content.complete
    assert content.fault == ""


def test_gzip_members_in_a_row_are_one_content(open_gzip: OpenGzip) -> None:
    content = open_gzip(gzip.compress(b"one\n") + gzip.compress(b"") + gzip.compress(b"two\n") + b"\0" * 600)
    assert read_all(content) == b"one\ntwo\n"
    assert content.complete
    assert content.fault == ""


@given(seed=st.integers(), offsets=st.lists(st.tuples(st.integers(0, 120_000), st.integers(1, 30_000)), max_size=12))
def test_gzip_read_at_any_offset_gives_what_lies_there(
    tmp_path_factory: pytest.TempPathFactory, seed: int, offsets: list[tuple[int, int]]
) -> None:
    data = log_lines(2_000, seed)
    path = tmp_path_factory.mktemp("gz") / "app.log.gz"
    path.write_bytes(gzip.compress(data[:30_000]) + gzip.compress(data[30_000:]))
    content = GzipContent(os.open(path, os.O_RDONLY))
    for offset, size in offsets:
        assert content.read(offset, size) == data[offset : offset + size]
    content.close()


def test_stepping_far_back_does_not_begin_again_from_the_first_byte(open_gzip: OpenGzip) -> None:
    data = bytes(64) * (1024 * 1024)  # 64 MiB
    content = open_gzip(gzip.compress(data, 1))
    assert content.read(len(data) - 10, 100) == data[-10:]
    # Nothing but a mark on the way can make this one step; from the first byte it would take 60.
    assert content.advance(60 * 1024 * 1024, 8 * 1024 * 1024)


def test_a_far_position_can_be_reached_in_steps(open_gzip: OpenGzip) -> None:
    data = log_lines(200_000)
    content = open_gzip(gzip.compress(data, 1))
    goal = len(data) - 100
    steps = 1
    while not content.advance(goal, 1024 * 1024):
        steps += 1
    assert steps == pytest.approx(goal / 1024 / 1024, abs=1)
    assert content.read(goal, 1000) == data[goal:]
    assert content.advance(len(data) + 5, 1024)  # as near as it gets
    assert content.read(len(data) + 5, 1) == b""


@pytest.mark.parametrize("kept", [0, 1, 5, 15, 100, 5_000, 30_000])
def test_a_torn_gzip_file_gives_what_there_is_and_goes_on_when_it_grows(
    open_gzip: OpenGzip, tmp_path: Path, kept: int
) -> None:
    data = log_lines(2_000)
    stored = gzip.compress(data[:50_000]) + gzip.compress(data[50_000:])
    content = open_gzip(stored[:kept])
    torn = read_all(content)
    assert data.startswith(torn)
    assert len(torn) >= kept - 2_000  # random hex compresses by half, headers aside
    assert not content.complete
    with (tmp_path / "app.log.gz").open("ab") as out:
        for at in range(kept, len(stored), 1_000):
            out.write(stored[at : min(at + 1_000, len(stored))])
            out.flush()
            torn += content.read(len(torn), 100_000)
    assert torn == data
    assert content.read(len(torn), 1) == b""
    assert content.complete


def test_everything_before_the_damage_is_given(open_gzip: OpenGzip) -> None:
    data = log_lines(2_000)
    damaged = bytearray(gzip.compress(data))
    damaged[-8] ^= 0xFF  # the checksum: every byte was right
    content = open_gzip(bytes(damaged))
    assert read_all(content) == data
    assert "damaged gzip data" in content.fault
    assert not content.complete


def test_damage_in_the_middle_ends_the_content_there(open_gzip: OpenGzip) -> None:
    data = log_lines(20_000)
    stored = gzip.compress(data)
    middle = len(stored) // 2
    content = open_gzip(stored[:middle] + b"\xff" * 300 + stored[middle + 300 :])
    got = read_all(content)
    assert content.fault
    before_damage = zlib.decompressobj(31).decompress(stored[:middle])
    assert got.startswith(before_damage[:-1_000])


def test_garbage_behind_the_last_member_is_told_and_not_read(open_gzip: OpenGzip) -> None:
    content = open_gzip(gzip.compress(b"good\n") + b"not gzip at all")
    assert read_all(content) == b"good\n"
    assert "not gzip" in content.fault


def test_a_small_bomb_is_read_in_bounded_memory(open_gzip: OpenGzip) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    stored = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(300)) + packer.flush()
    content = open_gzip(stored)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    at = 0
    while piece := content.read(at, 512 * 1024):
        assert len(piece) <= 512 * 1024
        at += len(piece)
    assert at == 300 * 1024 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 40 * 1024


@pytest.mark.parametrize(
    "name, head, storage",
    [
        ("app.log", b"plain text", "file"),
        ("app.log", b"", "file"),
        ("app.log.gz", b"plain text", "file"),
        ("app.log.2", gzip.compress(b"x", mtime=0), "gzip"),
        ("app.log", b"\x1f", "file"),
    ],
)
def test_a_file_is_what_its_first_bytes_say(tmp_path: Path, name: str, head: bytes, storage: str) -> None:
    parts = hostagent_register_tailers()
    wiring = Wiring("test", Clock(), tmp_path)
    tailers = {kind: part.build(NoOptions(), wiring) for kind, part in parts.items()}
    assert [kind for kind, tailer in tailers.items() if tailer.recognises(name, head)] == [storage]
