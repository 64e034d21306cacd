"""How much a spool may still write: its own bound, and what is to be left free on the disk for others.

Asked before each block. What is done when there is no room, the spool decides.
"""

from __future__ import annotations

import os
from pathlib import Path

from hostagent.config.model import SpoolConfig
from hostagent.state.faults import os_fault

SEGMENT_BYTES = 64 * 1024 * 1024
LEAST_SEGMENT_BYTES = 1024 * 1024


class Room:
    """The room of one spool."""

    def __init__(self, directory: Path, config: SpoolConfig) -> None:
        self._directory = directory
        self._config = config

    @property
    def segment_bytes(self) -> int:
        """How large a segment gets before another is begun."""
        return min(SEGMENT_BYTES, max(self._config.max_bytes // 8, 0 if self._drops else LEAST_SEGMENT_BYTES))

    @property
    def _drops(self) -> bool:
        return self._config.when_full != "block"

    def crowds(self, need_bytes: int, segment_bytes: int) -> bool:
        """Whether so many bytes more in a segment would leave too little besides it that can be dropped.

        What is in the segment of the block that is being delivered can't.
        """
        return self._drops and segment_bytes + need_bytes > self._config.max_bytes // 4

    def lacks(self, need_bytes: int, used_bytes: int) -> str:
        """Why so many bytes can't be written when so many are there already; empty when they can."""
        if need_bytes > self._config.max_bytes:
            return f"one block needs {need_bytes} bytes, spool.max_bytes is {self._config.max_bytes}"
        if used_bytes + need_bytes > self._config.max_bytes:
            return f"{used_bytes} of spool.max_bytes = {self._config.max_bytes} bytes are in use"
        free_bytes = self._free_bytes()
        if free_bytes - need_bytes < self._config.reserve_bytes:
            return f"the disk has {free_bytes} bytes free, spool.reserve_bytes = {self._config.reserve_bytes}"
        return ""

    def _free_bytes(self) -> int:
        # It may be on a filesystem of its own, and is not made before there is something to put into it.
        place = next(one for one in (self._directory, *self._directory.parents) if one.exists())
        try:
            disk = os.statvfs(place)
        except OSError as error:
            raise os_fault(place, "ask for its free space", error) from error
        return disk.f_bavail * disk.f_frsize
