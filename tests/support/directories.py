"""Directories that are not like pytest's own: open to every user, on a filesystem of their own, full."""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def anyones_directory() -> Iterator[Path]:
    """A directory that every user may enter: pytest's own are closed, and closed again by every pytest that starts."""
    directory = Path(tempfile.mkdtemp(prefix="hostagent-test."))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def small_disk(directory: Path, size: str = "4m") -> Iterator[Path]:
    """Some memory as a filesystem at a directory, which is also what is yielded; root only."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "small", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def ext4_disk(image: Path, mounted: Path) -> Iterator[None]:
    """A real filesystem of sixteen megabytes, kept in a file; root only."""
    image.write_bytes(b"")
    image.chmod(0o600)
    os.truncate(image, 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=False)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """This process can't open any file, as on a disk that answers with errors; what is open stays so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_larger_files() -> Iterator[None]:
    """This process can't write behind the end of any file, as on a disk that has become full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill_up(directory: Path) -> Path:
    """Leave not a byte free; the file that takes it all."""
    path = directory / "filler"
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path
