"""The kinds of file storage hostagent reads out of the box: plain files and gzip.

They register as a plugin's would. They decide what a file is by its first bytes, never by its name alone: a rotated
log may be called anything.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hostagent.hookspecs import Component, Content, Tailer, hookimpl
from hostagent.tail.files.contents import GZIP_MAGIC, FileContent, GzipContent


class NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Neither kind can be configured."""


class FileTailer:
    """Plain files: everything that is not known to be something else."""

    def recognises(self, name: str, head: bytes) -> bool:
        return not head.startswith(GZIP_MAGIC)

    def open(self, fd: int) -> Content:
        return FileContent(fd)


class GzipTailer:
    """Gzip files, as logrotate leaves them behind."""

    def recognises(self, name: str, head: bytes) -> bool:
        return head.startswith(GZIP_MAGIC)

    def open(self, fd: int) -> Content:
        return GzipContent(fd)


@hookimpl
def hostagent_register_tailers() -> Mapping[str, Component[Tailer]]:
    """Announce `file` and `gzip`."""
    return {
        "file": Component(NoOptions, lambda _options, _wiring: FileTailer()),
        "gzip": Component(NoOptions, lambda _options, _wiring: GzipTailer()),
    }
