"""The file output: every record once, whole, in order; through rotation, full disks and kill -9."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from hostagent.deliver.compress import build_compressor
from hostagent.deliver.outputs.file import FileOptions, FileOutput
from hostagent.errors import TemporaryError
from hostagent.model import Delivery
from tests.support.directories import small_disk
from tests.support.waiting import wait_for


def delivery(number: int, compression: str = "none", text: bytes = b"") -> Delivery:
    body = text or b'{"message":"%06d"}\n' % number
    body = build_compressor(compression).compress(body)
    return Delivery(f"{number:032x}", body, "application/x-ndjson", compression, 1, 1)


def output(folder: Path, **options: object) -> FileOutput:
    return FileOutput(FileOptions(path=str(folder / "out.ndjson"), **options), folder / "main.blocks")  # type: ignore[arg-type]


def lines(*numbers: int) -> bytes:
    return b"".join(b'{"message":"%06d"}\n' % number for number in numbers)


def test_blocks_are_appended_in_order(tmp_path: Path) -> None:
    out = output(tmp_path)
    for number in range(20):
        out.send(delivery(number))
    out.close()
    assert (tmp_path / "out.ndjson").read_bytes() == lines(*range(20))


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_compressed_blocks_make_one_readable_file(tmp_path: Path, compression: str) -> None:
    out = output(tmp_path)
    for number in range(20):
        out.send(delivery(number, compression))
    out.close()
    content = (tmp_path / "out.ndjson").read_bytes()
    if compression == "gzip":
        assert gzip.decompress(content) == lines(*range(20))
    else:
        with zstandard.open(tmp_path / "out.ndjson", "rb") as file:
            assert file.read() != b""
        reader = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True)
        assert reader.read() == lines(*range(20))


def test_a_block_that_comes_again_is_acked_and_not_written_again(tmp_path: Path) -> None:
    out = output(tmp_path)
    out.send(delivery(1))
    out.send(delivery(1))
    out.close()
    again = output(tmp_path)
    again.send(delivery(1))
    again.send(delivery(2))
    again.close()
    assert (tmp_path / "out.ndjson").read_bytes() == lines(1, 2)


def test_a_torn_block_is_cut_off_and_written_whole_when_it_comes_again(tmp_path: Path) -> None:
    out = output(tmp_path)
    out.send(delivery(1))
    with (tmp_path / "out.ndjson").open("ab") as file:
        file.write(lines(2) + lines(3)[:5])  # one whole record and half of another, but no mark: killed in between
    out.close()
    again = output(tmp_path)
    again.send(delivery(23, text=lines(2, 3)))
    again.close()
    assert (tmp_path / "out.ndjson").read_bytes() == lines(1, 2, 3)


def test_after_a_power_cut_whole_records_without_a_mark_are_kept(tmp_path: Path) -> None:
    out = output(tmp_path)
    out.send(delivery(1))
    out.close()
    marks = tmp_path / "main.blocks"
    title, *rest = marks.read_text().split("\n")
    words = title.split(" ")
    marks.write_text("\n".join([" ".join([words[0], "another-boot", *words[2:]]), *rest]))
    with (tmp_path / "out.ndjson").open("ab") as file:
        file.write(lines(2) + lines(3)[:5])
    again = output(tmp_path)
    again.send(delivery(3))
    again.close()
    assert (tmp_path / "out.ndjson").read_bytes() == lines(1, 2, 3)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_after_a_power_cut_whole_frames_without_a_mark_are_kept(tmp_path: Path, compression: str) -> None:
    out = output(tmp_path)
    out.send(delivery(1, compression))
    out.close()
    marks = tmp_path / "main.blocks"
    words = marks.read_text().split(" ")
    marks.write_text(" ".join([words[0], "another-boot", *words[2:]]))
    with (tmp_path / "out.ndjson").open("ab") as file:
        file.write(delivery(2, compression).body + delivery(3, compression).body[:9])
    again = output(tmp_path)
    again.send(delivery(3, compression))
    again.close()
    content = (tmp_path / "out.ndjson").read_bytes()
    assert content == b"".join(delivery(number, compression).body for number in (1, 2, 3))


def test_a_file_that_is_not_ours_is_continued_on_a_new_line(tmp_path: Path) -> None:
    (tmp_path / "out.ndjson").write_bytes(b"somebody's last line has no end")
    out = output(tmp_path)
    out.send(delivery(1))
    out.close()
    assert (tmp_path / "out.ndjson").read_bytes() == b"somebody's last line has no end\n" + lines(1)


def test_rotation_keeps_so_many_files_and_no_block_is_cut(tmp_path: Path) -> None:
    out = output(tmp_path, max_bytes=1024, keep=2)
    for number in range(200):
        out.send(delivery(number))
    out.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "main.blocks",
        "out.ndjson",
        "out.ndjson.1",
        "out.ndjson.2",
    ]
    kept = b"".join((tmp_path / f"out.ndjson{end}").read_bytes() for end in (".2", ".1", ""))
    assert lines(*range(200)).endswith(kept)
    assert all((tmp_path / f"out.ndjson{end}").stat().st_size <= 1024 for end in (".2", ".1", ""))


def test_a_block_larger_than_the_limit_gets_a_file_of_its_own(tmp_path: Path) -> None:
    out = output(tmp_path, max_bytes=1024, keep=5)
    out.send(delivery(1))
    out.send(delivery(2, text=b"x" * 5000 + b"\n"))
    out.send(delivery(3))
    out.close()
    assert (tmp_path / "out.ndjson.1").stat().st_size == 5001
    assert (tmp_path / "out.ndjson").read_bytes() == lines(3)


def test_a_file_moved_away_or_truncated_by_others_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "out.ndjson"
    out = output(tmp_path)
    out.send(delivery(1))
    path.rename(tmp_path / "moved")
    out.send(delivery(2))
    os.truncate(path, 0)
    out.send(delivery(3))
    assert path.read_bytes() == lines(3), "at its end of now, not where it was"
    path.unlink()
    out.send(delivery(4))
    out.close()
    assert (tmp_path / "moved").read_bytes() == lines(1)
    assert path.read_bytes() == lines(4)


def test_two_outputs_do_not_share_a_file(tmp_path: Path) -> None:
    first = output(tmp_path)
    first.send(delivery(1))
    second = FileOutput(FileOptions(path=str(tmp_path / "out.ndjson")), tmp_path / "other.blocks")
    with pytest.raises(TemporaryError, match="written by another process: give each output a file of its own"):
        second.send(delivery(2))
    first.close()
    second.send(delivery(2))
    second.close()
    assert (tmp_path / "out.ndjson").read_bytes() == lines(1, 2)


def test_what_can_not_be_written_says_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "out.ndjson").mkdir()
    with pytest.raises(TemporaryError, match=r"out\.ndjson can't be written .*directory"):
        output(tmp_path).send(delivery(1))
    (tmp_path / "out.ndjson").rmdir()
    os.mkfifo(tmp_path / "out.ndjson")
    with pytest.raises(TemporaryError, match="not a regular file"):
        output(tmp_path).send(delivery(1))


@pytest.fixture(name="small_disk")
def small_disk_mounted(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "64k") as disk:
        yield disk


@pytest.mark.requires(root=True, tools=("mount",))
def test_a_full_disk_tears_nothing_and_delivery_goes_on_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    out = output(small_disk)
    written = 0

    def fill() -> None:
        nonlocal written
        while True:
            out.send(delivery(written, text=b"y" * 3000 + b"%06d\n" % written))
            written += 1

    with pytest.raises(TemporaryError, match="No space left"):
        fill()
    ballast.unlink()
    for number in range(written, written + 3):
        out.send(delivery(number, text=b"y" * 3000 + b"%06d\n" % number))
    out.close()
    found = (small_disk / "out.ndjson").read_bytes().split(b"\n")[:-1]
    assert [line[3000:] for line in found] == [b"%06d" % number for number in range(written + 3)]
    assert {line[:3000] for line in found} == {b"y" * 3000}


@pytest.mark.requires(root=True, tools=("mount",))
def test_what_a_full_disk_tore_is_gone_before_anything_else_is_written(small_disk: Path) -> None:
    out = output(small_disk)
    out.send(delivery(1))
    with pytest.raises(TemporaryError, match="No space left"):
        out.send(delivery(2, text=b"y" * 100_000 + b"\n"))
    out.send(delivery(3))
    out.close()
    assert (small_disk / "out.ndjson").read_bytes() == lines(1, 3)


@pytest.mark.requires(root=True, tools=("mount",))
def test_what_a_full_disk_tore_is_not_left_for_those_who_move_the_file_away(small_disk: Path, tmp_path: Path) -> None:
    out = output(small_disk)
    out.send(delivery(1))
    with pytest.raises(TemporaryError, match="No space left"):
        out.send(delivery(2, text=b"y" * 100_000 + b"\n"))
    shutil.move(small_disk / "out.ndjson", tmp_path / "moved")
    out.send(delivery(3))
    out.close()
    assert (tmp_path / "moved").read_bytes() == lines(1)
    assert (small_disk / "out.ndjson").read_bytes() == lines(3)


@pytest.mark.requires(root=True, tools=("mount",))
def test_a_file_that_is_truncated_to_free_a_full_disk_begins_with_what_comes_next(small_disk: Path) -> None:
    out = output(small_disk)
    out.send(delivery(1))
    with pytest.raises(TemporaryError, match="No space left"):
        out.send(delivery(2, text=b"y" * 100_000 + b"\n"))
    os.truncate(small_disk / "out.ndjson", 0)
    out.send(delivery(3))
    out.close()
    assert (small_disk / "out.ndjson").read_bytes() == lines(3)


def _deliver_for_ever(folder: str, begin: int) -> None:
    out = output(Path(folder), max_bytes=20_000, keep=1000, fsync=False)
    acked = os.open(os.path.join(folder, "acked"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = begin
    while True:
        out.send(delivery(number, text=b"%06d\n" % number * 50))
        os.write(acked, b"%06d\n" % number)
        number += 1


def test_kill_9_at_any_moment_leaves_every_block_once(tmp_path: Path) -> None:
    """The sender repeats the block that was not acked, which may be there already, whole or torn."""
    context = multiprocessing.get_context("fork")
    acked = tmp_path / "acked"
    begin = 0
    for _ in range(25):
        before = acked.stat().st_size if acked.exists() else 0
        process = context.Process(target=_deliver_for_ever, args=(str(tmp_path), begin))
        process.start()
        wait_for(lambda before=before: acked.exists() and acked.stat().st_size > before, "a first ack")  # type: ignore[misc]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        process.close()
        begin = int(acked.read_text().splitlines()[-1]) + 1
    last = output(tmp_path, max_bytes=20_000, keep=1000, fsync=False)
    last.send(delivery(begin, text=b"%06d\n" % begin * 50))
    last.close()
    rotated = sorted(tmp_path.glob("out.ndjson.*"), key=lambda path: -int(path.suffix[1:]))
    found = b"".join(path.read_bytes() for path in [*rotated, tmp_path / "out.ndjson"])
    assert found == b"".join(b"%06d\n" % number * 50 for number in range(begin + 1))
