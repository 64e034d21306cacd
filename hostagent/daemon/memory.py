"""Keeps the C library from holding on to memory the agent has given back.

glibc makes an arena for every thread and keeps freed pages in each: a few MB per thread for buffers of a MiB that come
and go. One arena is enough for threads that share an interpreter lock. Elsewhere (musl) both calls are left out.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h


class Memory:
    """The C library's allocator, where it can be told anything."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        mallopt = getattr(library, "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)

    def give_back(self) -> None:
        """Return free pages to the kernel; about a millisecond."""
        if self._trim is not None:
            self._trim(0)
