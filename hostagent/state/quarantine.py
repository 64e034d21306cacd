"""Where damaged parts of the state go: kept for a person to look at, never read by the agent again.

Names say when and what: `20260131T120000Z-checkpoint.db`. The folder is bounded by a size and by a share of the free
disk, its oldest entries make room for new ones, and nothing here may stop a start: what can't be kept is let go and
said so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from hostagent.clock import Clock

MAX_BYTES = 512 * 1024 * 1024
MAX_SHARE = 0.25
"""Of what the disk would have free without it: what is kept for a person must not be why the agent has no room."""


class Quarantine:
    """A folder `quarantine/` inside the data directory."""

    def __init__(self, data_dir: Path, clock: Clock, max_bytes: int = MAX_BYTES) -> None:
        self.directory = data_dir / "quarantine"
        self._clock = clock
        self._max_bytes = max_bytes

    def move(self, path: Path, name: str = "") -> Path:
        """Move a whole file in; raises OSError, since a damaged file that stays would be met again."""
        self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        kept = self._free_name(name or path.name)
        shutil.move(path, kept)  # a rename, unless somebody mounted a disk in between
        self._make_room(kept)
        return kept

    def move_or_drop(self, path: Path, name: str) -> str:
        """Move a file in if there is room for it, remove it if not; says which. OSError when neither can be done."""
        try:
            return f"is now {self.move(path, name)}"
        except FileNotFoundError:
            return "is gone"
        except OSError as error:
            path.unlink()
            return f"was removed, since quarantine could not take it: {error.strerror}"

    def _free_name(self, name: str) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.wall_ns() // 1_000_000_000))
        kept = self.directory / f"{stamp}-{name}"
        number = 1
        while os.path.lexists(kept):
            number += 1
            kept = self.directory / f"{stamp}-{number}-{name}"
        return kept

    def _make_room(self, sparing: Path) -> None:
        entries = []
        for path in self.directory.iterdir():
            with contextlib.suppress(OSError):
                status = path.lstat()
                entries.append((status.st_ctime_ns, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        limit_bytes = self._limit_bytes(total)
        for _, size, path in sorted(entries):
            if total <= limit_bytes:
                break
            if path != sparing:
                with contextlib.suppress(OSError):
                    path.unlink()
                    total -= size

    def _limit_bytes(self, held_bytes: int) -> int:
        try:
            disk = os.statvfs(self.directory)
        except OSError:
            return self._max_bytes
        return min(self._max_bytes, int(MAX_SHARE * (disk.f_bavail * disk.f_frsize + held_bytes)))
