"""One log of one application, and everything that applications and logrotate do to its file.

Every line is numbered, and the stream's books say which bytes of which generation it is.
"""

import gzip
import os
import shutil
import time
from pathlib import Path

from tests.support.generations import Generations, identity_at, identity_of
from tests.support.lines import make_line

INODE_TRIES = 200
ROTATIONS = ("rename", "rename_late_reopen", "copytruncate", "rename_gzip", "hard_link", "symlink_swap")


class LogStream:
    """One log: `path` is the live file. Each truncation or new file begins a generation, which only grows."""

    def __init__(self, directory: Path, name: str, *, text_length: int = 120, plain: bool = False) -> None:
        self.name = name
        self.path = directory / f"{name}.log"
        self.text_length = text_length
        self.plain = plain
        self.generation = 0
        self.next_seq = 0
        self.rotated: list[Path] = []
        self.compress_after_s = 0.0
        self.books = Generations()
        self._copies: dict[Path, int] = {}  # which generation a rotated file holds
        self._fd = -1
        self._serial = 0
        self._pending = b""
        self._deleted = 0

    def span(self, generation: int) -> range:
        """The numbers of the lines of a generation."""
        return self.books.span(generation)

    def write(self, count: int, *, now_ns: int = 0) -> int:
        """Append whole lines in one write; how many bytes. A line begun by write_half is completed first."""
        numbers = range(self.next_seq, self.next_seq + count)
        lines = [
            make_line(self.name, self.generation, seq, now_ns, self.text_length, plain=self.plain) for seq in numbers
        ]
        pending, self._pending = self._pending, b""
        self.next_seq += count
        for line in lines:
            self.books.line(line)
        return self._append(pending + b"".join(lines))

    def write_half(self, share: float) -> None:
        """Begin a line, or go on with the one that is open, without ending it."""
        if not self._pending:
            self._pending = make_line(self.name, self.generation, self.next_seq, 0, self.text_length, plain=self.plain)
            self.next_seq += 1
            self.books.line(self._pending)
        cut = min(len(self._pending) - 1, int(len(self._pending) * share))
        self._append(self._pending[:cut])
        self._pending = self._pending[cut:]

    @property
    def open_line(self) -> bool:
        """Whether the last line is still without its newline."""
        return bool(self._pending)

    def finish_line(self) -> None:
        if self._pending:
            self.write(0)

    def rename(self, *, reopen: bool = True) -> Path:
        """Move the live file away. Without `reopen` the application keeps writing to the moved file for now."""
        moved = self._rotated_name()
        os.rename(self.path, moved)
        self._keep(moved)
        if reopen:
            self.reopen()
        return moved

    def reopen(self) -> None:
        """What an application does on SIGHUP: from now on the live file, created when it is missing."""
        self.finish_line()
        self.close()
        self._begin_generation()
        self._open()

    def copytruncate(self) -> Path:
        """Copytruncate as logrotate does it, without the gap in which others could write."""
        self.finish_line()
        copy = self._rotated_name()
        shutil.copyfile(self.path, copy)
        self._keep(copy)
        self.books.lies_in(identity_at(copy))
        self.truncate()
        return copy

    def truncate(self) -> None:
        """Everything in the live file is gone; the caller knows who has read it."""
        self._pending = b""
        os.truncate(self.path, 0)
        self._begin_generation()
        self.books.lies_in(identity_at(self.path))

    def delete(self) -> None:
        """Unlink the live file and start a new one with the next write."""
        self.finish_line()
        self.close()
        self._deleted = os.stat(self.path).st_ino
        for path in {self.path.resolve(), self.path}:
            path.unlink()
        self._begin_generation()

    def reuse_inode(self) -> bool:
        """After `delete`: begin the new file with the inode of the old one, if the filesystem gives it again."""
        others = []
        fresh = self.path.with_name(f".{self.name}.new")
        for number in range(INODE_TRIES):
            fresh.touch()
            if fresh.stat().st_ino == self._deleted:
                fresh.rename(self.path)
                break
            others.append(fresh.rename(fresh.with_name(f".{self.name}.{number}")))
        for other in others:
            other.unlink()
        self._open()
        return os.fstat(self._fd).st_ino == self._deleted

    def compress(self, rotated: Path) -> Path:
        """Compress as logrotate does: the compressed file appears beside the other, which then goes."""
        packed = rotated.with_name(rotated.name + ".gz")
        with rotated.open("rb") as plain, gzip.open(packed, "wb", compresslevel=1) as target:
            shutil.copyfileobj(plain, target)
        self._copies[packed] = self._copies.pop(rotated)
        self.books.lies_in(identity_at(packed), self._copies[packed])
        os.unlink(rotated)
        self.rotated = [packed if path == rotated else path for path in self.rotated]
        return packed

    def rotate(self, how: str) -> None:
        """One of ROTATIONS, or "delete", which leaves the bytes to those who hold the file open."""
        if not self.path.exists():
            self._open()
        match how:
            case "rename":
                self.rename()
            case "rename_late_reopen":
                self.rename(reopen=False)
                self.write(3)
                self.reopen()
            case "copytruncate":
                self.copytruncate()
            case "rename_gzip":
                # With delaycompress, as most configurations have it: the one before is compressed.
                if self.rotated and self._may_be_compressed(self.rotated[-1]):
                    self.compress(self.rotated[-1])
                self.rename()
            case "hard_link":
                linked = self._rotated_name()
                os.link(self.path, linked)
                os.unlink(self.path)
                self._keep(linked)
                self.reopen()
            case "delete":
                self.write(1)
                self.delete()
            case "symlink_swap":
                self._symlink_swap()
            case _:
                raise ValueError(f"{how!r} is no rotation; there are: {', '.join(ROTATIONS)}")

    def remove_rotated(self, below: int) -> None:
        """Remove the rotated files whose lines all have numbers below this: somebody has them."""
        done = [path for path in self.rotated if self.books.span(self._copies[path]).stop <= below]
        for path in done:
            path.unlink(missing_ok=True)
            self.rotated.remove(path)
            del self._copies[path]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _symlink_swap(self) -> None:
        """The live name becomes a symbolic link to a dated file, as some loggers keep their `current`."""
        self.finish_line()
        dated = self._rotated_name()
        if self.path.is_symlink():
            self._keep(self.path.resolve())
        else:
            previous = self._rotated_name()
            os.rename(self.path, previous)
            self._keep(previous)
        link = self.path.with_name(f".{self.name}.new")
        dated.touch()
        os.symlink(dated, link)
        os.rename(link, self.path)
        self.reopen()

    def _may_be_compressed(self, rotated: Path) -> bool:
        old = time.time() - rotated.stat().st_mtime >= self.compress_after_s
        return old and rotated.suffix != ".gz" and rotated != self.path.resolve()

    def _begin_generation(self) -> None:
        self.generation += 1
        self.books.begin()

    def _keep(self, rotated: Path) -> None:
        self.rotated.append(rotated)
        self._copies[rotated] = self.generation

    def _rotated_name(self) -> Path:
        self._serial += 1
        return self.path.with_name(f"{self.path.name}.{self._serial}")

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.books.lies_in(identity_of(self._fd))

    def _append(self, data: bytes) -> int:
        if self._fd < 0:
            self._open()
        if os.write(self._fd, data) != len(data):
            raise OSError(f"{self.path} took only a part: is the disk full?")
        return len(data)
