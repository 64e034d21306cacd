"""The small filesystems do to files what they say: a power loss that loses nothing would prove nothing."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.disks import Disks

pytestmark = pytest.mark.requires(root=True, tools=("mkfs.ext4", "e2fsck"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "disk"


@pytest.fixture
def disks(tmp_path: Path, place: Path) -> Iterator[Disks]:
    with contextlib.closing(Disks([(tmp_path / "disk.img", place)])) as mounted:
        yield mounted


def write(path: Path, data: bytes, *, sync: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, data)
    if sync:
        os.fsync(fd)
    os.close(fd)


def test_a_power_loss_takes_what_was_not_synced_and_nothing_else(disks: Disks, place: Path) -> None:
    write(place / "log", b"safe", sync=True)
    write(place / "log", b" and not", sync=False)
    write(place / "never synced", b"gone", sync=False)
    disks.lose_power()
    assert (place / "log").read_bytes() == b"safe"
    assert not (place / "never synced").exists()


def test_a_rename_that_was_not_synced_is_undone_by_a_power_loss(disks: Disks, place: Path) -> None:
    write(place / "old", b"one", sync=True)
    os.rename(place / "old", place / "new")
    disks.lose_power()
    assert [path.name for path in place.iterdir() if path.is_file()] == ["old"]


@pytest.mark.parametrize("how, error", [("turn_read_only", errno.EROFS), ("die", errno.EIO)])
def test_a_failing_disk_fails_open_files_until_it_is_mounted_again(
    disks: Disks, place: Path, how: str, error: int
) -> None:
    write(place / "log", b"safe", sync=True)
    fd = os.open(place / "log", os.O_WRONLY | os.O_APPEND)
    getattr(disks.at(place), how)()
    with pytest.raises(OSError, match=os.strerror(error)):
        os.write(fd, b"refused")
    os.close(fd)
    disks.mount_again()
    assert (place / "log").read_bytes() == b"safe"
    write(place / "log", b" again", sync=True)


def test_a_container_that_began_meanwhile_does_not_keep_a_disk_broken(disks: Disks, place: Path) -> None:
    """Its mount namespace is a copy in which everything stays mounted."""
    write(place / "log", b"safe", sync=True)
    hold = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; read _"]
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        disks.at(place).turn_read_only()
        disks.mount_again()
        write(place / "log", b" again", sync=True)
        assert (place / "log").read_bytes() == b"safe again"
        assert holder.poll() is None
        holder.communicate(b"\n")
