"""A second pair of eyes on a source's files: the records that new lines become, without the agent taking part.

It opens the files itself, reads on from where they end now and runs the source's chain. It keeps no position, sends
nothing, and can't hold up delivery; what it is too slow for it still reads, since the files are the buffer.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping

from hostagent.hookspecs import Content, Encoder
from hostagent.model import Scalar
from hostagent.process.chain import Chain
from hostagent.tail.files.contents import FileContent

CHUNK_BYTES = 512 * 1024
LINE_START_BYTES = 64 * 1024


class _Tapped:
    """One open file and how far it was shown."""

    def __init__(self, content: Content, offset: int, constants: Mapping[str, Scalar]) -> None:
        self.content = content
        self.offset = offset
        self.constants = constants


class Tap:
    """The files of one source; `follow` and `forget` say which, `records` gives what is new in them."""

    def __init__(self, chain: Chain, encoder: Encoder) -> None:
        self._chain = chain
        self._encoder = encoder
        self._files: dict[tuple[int, int], _Tapped] = {}
        self._begun = False

    def follow(self, path: str, constants: Mapping[str, Scalar], inode: tuple[int, int] | None = None) -> None:
        """Begin with a file if it is a regular one, and that with this device and inode where they are given.

        Those there at the first `records` are shown from their end on, later ones from their beginning.
        """
        try:
            found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        try:
            status = os.fstat(found)
            key = (status.st_dev, status.st_ino)
            if key in self._files or not stat.S_ISREG(status.st_mode) or inode not in {None, key}:
                return
            fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        finally:
            os.close(found)
        content = FileContent(fd)
        self._files[key] = _Tapped(content, 0 if self._begun else _last_line_start(content, status.st_size), constants)

    def keep(self, inodes: set[tuple[int, int]]) -> None:
        """Let go of all other files."""
        for key in set(self._files) - inodes:
            self._files.pop(key).content.close()

    def records(self, observed_ns: int) -> Iterator[bytes]:
        """Encoded records of whatever is new, file by file."""
        self._begun = True
        for tapped in list(self._files.values()):
            with contextlib.suppress(OSError):
                yield from self._of(tapped, observed_ns)

    def close(self) -> None:
        """Close every file."""
        self.keep(set())

    def _of(self, tapped: _Tapped, observed_ns: int) -> Iterator[bytes]:
        if os.fstat(tapped.content.fd).st_size < tapped.offset:
            tapped.offset = 0  # truncated
        limit = CHUNK_BYTES + self._chain.reach_bytes
        while data := tapped.content.read(tapped.offset, limit):
            done = self._chain.process(data, tapped.constants, final=False)
            if not done.consumed and len(data) < limit:
                return
            tapped.offset += done.consumed or len(data)
            payloads = [self._encoder.encode(batch, observed_ns).payload for batch in done.batches]
            if payloads:
                yield self._encoder.join(payloads)


def _last_line_start(content: Content, size: int) -> int:
    start = max(0, size - LINE_START_BYTES)
    data = content.read(start, size - start)
    return start + data.rfind(b"\n") + 1 if b"\n" in data else start
