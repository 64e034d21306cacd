"""Small ext4 filesystems in files, which can fill up, turn read-only or lose power.

What ext4 has not yet written to its device is not in the image file: a copy of the image taken while the filesystem is
mounted is what a power cut would leave, journal and all.
"""

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

SIZE_BYTES = 96 << 20
# linux/ext4.h: EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_DEFAULT
_EXT4_IOC_SHUTDOWN = 0x8004587D
_AFTER_A_SYNC = struct.pack("=I", 0)


class Disk:
    """One filesystem, mounted over `mount_point`."""

    def __init__(self, image: Path, mount_point: Path) -> None:
        self.mount_point = mount_point
        self._image = image
        with image.open("wb") as file:
            os.truncate(file.fileno(), SIZE_BYTES)
        _command("mkfs.ext4", "-q", "-m", "0", str(image))
        self.mount()

    def mount(self) -> None:
        self.mount_point.mkdir(parents=True, exist_ok=True)
        # Only an fsync commits the journal, not the five-second timer: a power cut shall hurt as much as it may.
        _command("mount", "-o", "loop,commit=300,errors=remount-ro", str(self._image), str(self.mount_point))

    def unmount(self) -> None:
        _command("umount", str(self.mount_point))

    def remount(self, mode: str) -> None:
        _command("mount", "-o", f"remount,{mode}", str(self.mount_point))

    def turn_read_only(self) -> None:
        """As ext4 does when it finds itself damaged. Files that are open for writing don't keep it from that."""
        Path(f"/sys/fs/ext4/{self._device()}/trigger_fs_error").write_text("torture\n")

    def die(self) -> None:
        """From now on everything that needs the device fails with EIO; what was written before is on it."""
        fd = os.open(self.mount_point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, _AFTER_A_SYNC)
        finally:
            os.close(fd)

    def repair(self) -> None:
        """Not mounted: what the next boot would do to a filesystem that has noted an error.

        To a copy: the kernel keeps the old one, with its error, as long as a mount namespace that was made meanwhile (a
        container's) has it mounted, and would show it again.
        """
        copy = self._image.with_suffix(".kept")
        shutil.copyfile(self._image, copy)
        os.replace(copy, self._image)
        # 1: errors were corrected
        run = subprocess.run(["e2fsck", "-p", "-f", str(self._image)], check=False, capture_output=True, text=True)
        assert run.returncode in {0, 1}, run.stdout + run.stderr

    def _device(self) -> str:
        number = os.stat(self.mount_point).st_dev
        return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name

    def write_back(self) -> None:
        """What the kernel may do at any time, and in any order: put on the device what nobody has synced."""
        _command("sync", "-f", str(self.mount_point))

    def flush(self) -> None:
        """As `write_back`, of a filesystem that may not be able to."""
        subprocess.run(["sync", "-f", str(self.mount_point)], check=False, stderr=subprocess.DEVNULL)

    def freeze_image(self) -> None:
        """Keep what is on the device at this moment; the next mount shows that and nothing later."""
        kept = self._image.with_suffix(".kept")
        shutil.copyfile(self._image, kept)
        self._next = kept

    def use_frozen_image(self) -> None:
        """To be called while unmounted: unmounting has written the rest, but to the image that is thrown away."""
        os.replace(self._next, self._image)


class Disks:
    """Nested filesystems, outermost first."""

    def __init__(self, places: list[tuple[Path, Path]]) -> None:
        self._disks = [Disk(image, mount_point) for image, mount_point in places]

    def at(self, mount_point: Path) -> Disk:
        return next(disk for disk in self._disks if disk.mount_point == mount_point)

    def lose_power(self) -> None:
        """Everything that was not synced is gone. Nobody may have files open there any more."""
        for disk in self._disks:
            disk.freeze_image()
        self.close()
        for disk in self._disks:
            disk.use_frozen_image()
            disk.mount()

    def mount_again(self) -> None:
        """As after a boot. Nobody may have files open there any more."""
        for disk in self._disks:
            disk.flush()
        self.close()
        for disk in self._disks:
            disk.repair()
            disk.mount()

    def close(self) -> None:
        for disk in reversed(self._disks):
            disk.unmount()


def _command(*words: str) -> None:
    subprocess.run(words, check=True)
