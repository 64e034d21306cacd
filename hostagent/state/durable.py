"""What it takes for a file to be there after a power cut: its bytes, and its name in its directory, are synced.

Everything that puts a whole file in place comes here: the database and its backup, requests, segments, the `file`
output. It decides nothing about what is worth a sync.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(directory: str | Path) -> None:
    """Make names created, renamed or removed in a directory durable; OSError when the disk refuses."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable, whoever wrote them; OSError when the disk refuses."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
