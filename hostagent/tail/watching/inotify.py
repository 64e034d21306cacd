"""inotify's system calls and flags, through the C library that is loaded anyway.

Owns one instance's descriptor. The Python library for this runs `ldconfig` at every start to find that C library, and
what it loads for that takes 1 MB of every agent.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from enum import IntFlag
from errno import EINTR

_libc = ctypes.CDLL(None, use_errno=True)


class Flag(IntFlag):
    """The part of linux/inotify.h that is used here."""

    MODIFY = 0x2
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    UNMOUNT = 0x2000
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x1000000
    ISDIR = 0x40000000


class Inotify:
    """One instance; reading from its descriptor never waits. OSError where the kernel refuses."""

    def __init__(self) -> None:
        self._fd = _call(_libc.inotify_init1, os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        return self._fd

    def add_watch(self, path: str, mask: int) -> int:
        """Watch what is at this path; its watch descriptor."""
        return _call(_libc.inotify_add_watch, self._fd, os.fsencode(path), mask)

    def rm_watch(self, descriptor: int) -> None:
        """Watch it no longer."""
        _call(_libc.inotify_rm_watch, self._fd, descriptor)

    def close(self) -> None:
        """Give the descriptor back, and all watches with it."""
        os.close(self._fd)


def _call(function: Callable[..., int], *arguments: int | bytes) -> int:
    while (result := function(*arguments)) == -1:
        number = ctypes.get_errno()
        if number != EINTR:
            raise OSError(number, os.strerror(number))
    return result
