"""Which file is which: identity, fingerprint, anchor, and whether somebody still writes."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.model import FileId, Fingerprint
from hostagent.tail.files.contents import FileContent
from hostagent.tail.files.identity import (
    anchor_holds,
    anchor_of,
    fingerprint,
    has_writer,
    identify,
    ignore_lease_signal,
    same_file,
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FileContent]:
    path = tmp_path / "app.log"
    path.write_bytes(b"")
    content = FileContent(os.open(path, os.O_RDONLY))
    yield content
    content.close()


@pytest.fixture
def lease_signal() -> Iterator[None]:
    before = signal.getsignal(signal.SIGIO)
    ignore_lease_signal()
    yield
    signal.signal(signal.SIGIO, before)


def test_identity_agrees_with_fstat(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"some bytes\n")
    os.link(path, tmp_path / "second-name.log")
    fd = os.open(path, os.O_RDONLY)
    found, status = identify(fd), os.fstat(fd)
    os.close(fd)
    assert (found.id.device, found.id.inode) == (status.st_dev, status.st_ino)
    assert (found.size, found.nlink, found.mode) == (11, 2, status.st_mode)
    assert found.mtime_ns == status.st_mtime_ns


def test_birth_time_is_what_stat_prints_and_outlives_writing(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"1\n")
    fd = os.open(path, os.O_RDWR)
    before = identify(fd).id.birth_ns
    printed = subprocess.run(["stat", "-c", "%W", path], check=True, capture_output=True, text=True).stdout.strip()
    os.pwrite(fd, b"longer\n", 0)
    os.utime(path, (0, 0))
    assert identify(fd).id.birth_ns == before
    os.close(fd)
    assert str(before // 1_000_000_000) == printed.replace("-", "0")


def test_a_bad_descriptor_is_an_oserror() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        identify(-1)


@pytest.mark.parametrize(
    "other, same",
    [
        (FileId(1, 7, 100), True),
        (FileId(9, 7, 100), True),  # mounted again: another device number
        (FileId(1, 7, 0), True),  # taken where birth times are unknown
        (FileId(1, 7, 101), False),  # the inode was used again
        (FileId(1, 8, 100), False),
    ],
)
def test_same_file_across_time(other: FileId, same: bool) -> None:
    assert same_file(FileId(1, 7, 100), other) is same


def test_a_fingerprint_grows_with_the_file_up_to_a_kibibyte(log: FileContent, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    known = fingerprint(log)
    assert known == Fingerprint(0, b"")
    lengths = []
    for _ in range(12):
        with path.open("ab") as out:
            out.write(b"x" * 100)
        known = fingerprint(log, known)
        assert known is not None
        lengths.append(known.length)
    assert lengths == [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1024, 1024]


@pytest.mark.parametrize("now", [b"", b"firs", b"First line\n", b"other first line\n"])
def test_a_fingerprint_tells_a_rewritten_file(log: FileContent, tmp_path: Path, now: bytes) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"first line\n")
    known = fingerprint(log)
    path.write_bytes(now)
    assert fingerprint(log, known) is None


def test_one_byte_is_enough_for_a_fingerprint(log: FileContent, tmp_path: Path) -> None:
    (tmp_path / "app.log").write_bytes(b"a")
    known = fingerprint(log)
    (tmp_path / "app.log").write_bytes(b"b")
    assert fingerprint(log, known) is None


@pytest.mark.parametrize("offset", [0, 1, 255, 256, 257, 1000])
def test_an_anchor_holds_where_the_bytes_before_it_are_the_same(log: FileContent, tmp_path: Path, offset: int) -> None:
    data = bytes(range(250)) * 4
    path = tmp_path / "app.log"
    path.write_bytes(data)
    anchor = anchor_of(data[:offset])
    assert anchor == anchor_of(data[max(0, offset - 256) : offset])
    assert anchor_holds(log, offset, anchor)
    if offset:
        changed = bytearray(data)
        changed[offset - 1] ^= 1
        path.write_bytes(changed)
        assert not anchor_holds(log, offset, anchor)
        path.write_bytes(data[: offset - 1])
        assert not anchor_holds(log, offset, anchor)


@pytest.mark.usefixtures("lease_signal")
def test_a_writer_is_seen_until_its_last_descriptor_is_closed(log: FileContent, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    assert has_writer(log.fd) is False
    one, other = os.open(path, os.O_WRONLY), os.open(path, os.O_RDWR)
    assert has_writer(log.fd) is True
    os.close(one)
    assert has_writer(log.fd) is True
    path.rename(tmp_path / "app.log.1")
    assert has_writer(log.fd) is True
    (tmp_path / "app.log.1").unlink()
    assert has_writer(log.fd) is True
    os.close(other)
    assert has_writer(log.fd) is False


@pytest.mark.usefixtures("lease_signal")
def test_other_readers_are_no_writers(log: FileContent, tmp_path: Path) -> None:
    with (tmp_path / "app.log").open("rb"):
        assert has_writer(log.fd) is False


@pytest.mark.usefixtures("lease_signal")
def test_asking_leaves_no_lease_behind(log: FileContent, tmp_path: Path) -> None:
    assert has_writer(log.fd) is False
    assert fcntl.fcntl(log.fd, fcntl.F_GETLEASE) == fcntl.F_UNLCK
    # With a lease left behind this open would wait for lease-break-time (45 s), or fail because it must not wait.
    os.close(os.open(tmp_path / "app.log", os.O_WRONLY | os.O_NONBLOCK))


@pytest.mark.usefixtures("lease_signal")
def test_where_the_lease_signal_would_kill_nobody_asks(log: FileContent) -> None:
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    assert has_writer(log.fd) is None


@pytest.mark.usefixtures("lease_signal")
def test_what_can_hold_no_lease_can_not_be_told() -> None:
    read_end, write_end = os.pipe()
    assert has_writer(read_end) is None
    os.close(read_end)
    os.close(write_end)


def test_a_process_survives_asking_while_writers_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"")
    program = """
import os, sys, threading
from hostagent.tail.files.identity import has_writer, ignore_lease_signal
ignore_lease_signal()
path = sys.argv[1]
fd = os.open(path, os.O_RDONLY)
stop = threading.Event()
def write():
    while not stop.is_set():
        out = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(out, b"x")
        os.close(out)
writer = threading.Thread(target=write)
writer.start()
answers = {has_writer(fd) for _ in range(5000)}
while not {False, True} <= answers:
    answers.add(has_writer(fd))
stop.set()
writer.join()
print(sorted(answers - {None}), has_writer(fd))
"""
    done = subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[False, True] False\n"
