"""What this process holds open, for tests that must leave nothing open."""

import os
from contextlib import suppress


def held() -> list[str]:
    """Files, directories and watches, as the kernel names them.

    Without sockets and pipes: threads that a test before this one has left behind may close theirs at any time.
    """
    names = []
    for entry in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            names.append(os.readlink(f"/proc/self/fd/{entry}"))
    return sorted(name for name in names if not name.startswith(("socket:", "pipe:")))
