"""Tells the C library how to hold on to memory: in one place, without giving it back and asking again all the time.
And tells Python what it need not look through for garbage: the agent itself.

glibc makes an arena for every thread and keeps freed pages in each; one is enough for threads that share an interpreter
lock. It also returns every freed buffer of a MiB to the kernel and faults its pages in again for the next, which at
full speed is a third of all system time. Elsewhere (musl) nothing is set.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

# malloc.h. Buffers stay below 8 MiB: chunk, payload, block and compressed body are one or two MiB each.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_SETTINGS = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, 8 << 20), (_M_TRIM_THRESHOLD, 16 << 20))


@contextlib.contextmanager
def made_to_stay() -> Iterator[None]:
    """What is imported and built within stays to the agent's end, so nothing of it is ever looked through for garbage.

    The collector would begin again with every few hundred objects that are new: a fifth of all CPU time of a start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class Memory:
    """The C library's allocator, where it can be told anything."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        mallopt = getattr(library, "mallopt", None)
        if mallopt is not None:
            for option, value in _SETTINGS:
                mallopt(option, value)

    def give_back(self) -> None:
        """Return free pages to the kernel, now and then; about a millisecond."""
        if self._trim is not None:
            self._trim(0)
