"""A directory of numbered segment files that only grow at the end: what the spool and the dead letters are made of.

Owns the files: appending, fsync, rolling over, healing at start, removal. A segment's name holds its number and marker
(`000000000012-9f86d081884c7d65.seg`). After a restart appending goes on in a new segment, so an old one is never
written again. It knows nothing of blocks: what is lost when frames are damaged is for its user to say.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hostagent.errors import StateError
from hostagent.state.durable import sync_directory
from hostagent.state.faults import os_fault
from hostagent.state.lock import DirectoryLock
from hostagent.state.quarantine import Quarantine
from hostagent.state.segments import frames
from hostagent.state.segments.frames import Damage, Frame
from hostagent.state.segments.marks import Cursor, Manifest, Mark
from hostagent.state.segments.survey import Segment, number_of, open_for_reading, scan_segment, survey


class SegmentLog:
    """The one writer of a directory of segments. Not thread-safe: its user has the lock."""

    def __init__(
        self,
        directory: Path,
        segment_bytes: int,
        quarantine: Quarantine,
        on_drained: Callable[[tuple[int, int]], None] = lambda _: None,
    ) -> None:
        """Lock the directory and heal what is in it; StateError when the disk won't let us.

        `on_drained` is told before which place everything is done, before segments that held some of it are removed.
        Everything before `done` was drained or given up by an earlier run, whatever has become of the files since.
        """
        self.directory = directory
        self._segment_bytes = segment_bytes
        self._quarantine = quarantine
        self._on_drained = on_drained
        self._active: tuple[Segment, int] | None = None
        self._listed = False
        self._reading: tuple[Segment, int] | None = None
        try:
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise os_fault(directory, "make the directory", error) from error
        self._lock = DirectoryLock.acquire(directory)
        try:
            found = survey(directory)
            self.segments = found.segments
            self.missing = found.missing
            self.foreign = found.foreign
            self.torn_bytes = 0
            self.unreadable: list[Segment] = []
            self._copies: list[Segment] = []
            self._tell_apart(found.copies)
            self._heal(found.mark)
            self._cursor = Cursor(directory)
            self._manifest = Manifest(directory)
            numbers = [one.number for one in [*self.segments, *found.copies]] + [*map(number_of, found.foreign)]
            self._next = max([*numbers, *found.missing, found.mark.head_segment if found.mark else 0]) + 1
            self.head = self._first_head(found.mark)
            self.done = (found.mark.head_segment, found.mark.head_offset) if found.mark is not None else (0, 0)
            self._mark_lost = found.mark is None
            self.given_up = (found.mark.given_up_segment, found.mark.given_up_offset) if found.mark else (0, 0)
            self._next = max(self._next, self.given_up[0] + 1)
            self._first_new = self._next
            self.synced = (self.segments[-1].number, self.segments[-1].size) if self.segments else self.head
            marked = [found.mark[:2], found.mark[2:4]] if found.mark is not None else []
            self.known = max([self.synced, *marked, *found.missing.items()])
            """Behind this place nothing was durable when it was opened, as far as anything left here tells."""
        except OSError as error:
            self._lock.close()
            raise os_fault(directory, "open it", error) from error
        except BaseException:
            self._lock.close()
            raise

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self.segments)

    def settle(self) -> list[str]:
        """Call when what is missing or unreadable is in the ledger; says what became of unreadable segments."""
        kept = []
        try:
            for one in self._copies:
                became = self._quarantine.move_or_drop(one.path, self._quarantine_name(one))
                kept.append(f"segment {one.path.name} is a copy of another one; it {became}")
            for one in self.unreadable:
                became = self._quarantine.move_or_drop(one.path, self._quarantine_name(one))
                kept.append(f"nothing in segment {one.path.name} reads ({one.damage}); it {became}")
            self._write_manifest()
        except OSError as error:
            raise os_fault(self.directory, "settle it", error) from error
        self.move_head(self.head)
        return kept

    def append(self, kind: int, header: bytes, payload: bytes) -> tuple[int, int]:
        """Write a frame; returns (segment, offset). Not safe before sync(). StateError leaves things as before."""
        if why := frames.too_large(header, payload):
            raise StateError(f"{self.directory}: {why}")
        try:
            segment, fd = self._active or self._begin()
            head = frames.encode_head(kind, segment.marker, header, payload)
            _write_all(fd, (head, payload), segment.size)
        except OSError as error:
            if self._active is not None:
                with contextlib.suppress(OSError):  # the next frame is written over it anyway
                    os.ftruncate(self._active[1], self._active[0].size)
            raise os_fault(self.directory, "write into the spool", error) from error
        place = (segment.number, segment.size)
        segment.size += len(head) + len(payload)
        return place

    def sync(self) -> None:
        """Make everything appended durable. After StateError, what was appended since the last sync is not there."""
        if self._active is None:
            return
        segment, fd = self._active
        if self.synced == (segment.number, segment.size):
            return
        try:
            os.fdatasync(fd)
            if not self._listed:
                sync_directory(self.directory)
                self._write_manifest()
                self._listed = True
        except OSError as error:
            self._abandon_unsynced()
            raise os_fault(segment.path, "make the spool durable", error) from error
        self.synced = (segment.number, segment.size)
        self._write_mark()
        if segment.size >= self._segment_bytes:
            self.seal()

    def seal(self) -> None:
        """End the segment being written, which is durable; the next append begins another."""
        if self._active is not None:
            os.close(self._active[1])
            self._active = None

    def frames(self, place: tuple[int, int]) -> Iterator[tuple[Segment, Frame | Damage]]:
        """Frames with sound heads, and damage, from a place on, as far as they are durable."""
        for segment in list(self.segments):
            if segment.number >= place[0]:
                start = place[1] if segment.number == place[0] else 0
                yield from ((segment, found) for found in scan_segment(segment, start, self.durable_size(segment)))

    def payload(self, segment: Segment, frame: Frame) -> bytes | None:
        """The payload of a frame; None when its checksum is wrong."""
        if self._reading is None or self._reading[0] is not segment:
            self._stop_reading()
            self._reading = (segment, open_for_reading(segment.path))
        return frames.read_payload(self._reading[1], frame)

    def durable_size(self, segment: Segment) -> int:
        """How much of a segment is durable."""
        number, offset = self.synced
        if segment.number == number:
            return offset
        return segment.size if segment.number < number else 0

    def move_head(self, place: tuple[int, int]) -> None:
        """Remember that everything before a place is done, and remove the segments before it; what fails, next time."""
        if any(one.number == place[0] and place[1] >= one.size and not self._is_active(one) for one in self.segments):
            place = (place[0] + 1, 0)
        self.head = place
        self._write_mark()
        going = [one for one in self.segments if one.number < place[0]]
        with contextlib.suppress(StateError):  # tried again with the next move
            if going:
                self._on_drained(place)
            for segment in going:
                self.remove(segment)

    def is_fresh(self, segment: Segment) -> bool:
        """Whether a segment was begun in this run."""
        return segment.number >= self._first_new

    @property
    def runs(self) -> Sequence[str]:
        """The runs of the agent that the directory has lived through; none where its mark is lost."""
        return self._cursor.runs

    def begin_run(self, run: str, before: Sequence[str]) -> None:
        """Name those before and this one, durably."""
        try:
            self._cursor.begin_run(run, before)
        except OSError as error:
            raise os_fault(self.directory, "write the mark", error) from error

    def note_given_up(self, place: tuple[int, int]) -> None:
        """Something before a place was given up: it will not be drained, whether its segment is there or gone."""
        if place > self.given_up:
            self.given_up = place
            self.number_behind(place[0] if place[1] else place[0] - 1)
            self._write_mark()

    def number_behind(self, number: int) -> None:
        """Let the next segment have a higher number."""
        self._next = max(number + 1, self._next)
        if self._mark_lost:
            # It would have said what was given up in segments that are gone.
            self._mark_lost = False
            self.note_given_up((self.segments[0].number if self.segments else self._next, 0))

    def drop_drained(self) -> None:
        """When the head is at the very end and all is durable: give the disk space back, unless it is little."""
        if self._active is not None and self._active[0].size >= self._segment_bytes // 4:
            self.seal()
            self.move_head(self.head)

    def remove(self, segment: Segment) -> None:
        """Take a durable segment away, a damaged one into quarantine."""
        if self._is_active(segment):
            self.seal()
        if self._reading is not None and self._reading[0] is segment:
            self._stop_reading()
        try:
            # After a power cut the database may still have its blocks: then the mark tells that they are done.
            self._cursor.sync()
            # First off the list, then off the disk: what is listed and not there was taken by somebody else.
            self._write_manifest(without=segment)
            if segment.damage:
                self._quarantine.move_or_drop(segment.path, self._quarantine_name(segment))
            else:
                segment.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise os_fault(segment.path, "remove it", error) from error
        self.segments.remove(segment)

    def close(self) -> None:
        """Make durable what can be, and let another process have the directory."""
        with contextlib.suppress(StateError):
            self.sync()
        self.seal()
        self._stop_reading()
        self._cursor.close()
        self._manifest.close()
        self._lock.close()

    def _begin(self) -> tuple[Segment, int]:
        marker = os.urandom(frames.MARKER_BYTES)
        path = self.directory / f"{self._next:012d}-{marker.hex()}.seg"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        segment = Segment(path, self._next, marker)
        self._next += 1
        self.segments.append(segment)
        self._active = (segment, fd)
        self._listed = False
        return self._active

    def _abandon_unsynced(self) -> None:
        """After a failed fsync the kernel may call lost pages clean: what they held must be written again elsewhere."""
        assert self._active is not None
        segment, fd = self._active
        segment.size = self.durable_size(segment)
        with contextlib.suppress(OSError):
            os.ftruncate(fd, segment.size)
        os.close(fd)
        self._active = None
        if segment.size == 0:
            self.segments.remove(segment)
            with contextlib.suppress(OSError):
                segment.path.unlink()

    def _is_active(self, segment: Segment) -> bool:
        return self._active is not None and self._active[0] is segment

    def _quarantine_name(self, segment: Segment) -> str:
        return f"{self.directory.name}-{segment.path.name}"

    def _write_manifest(self, without: Segment | None = None) -> None:
        self._manifest.write(
            {one.number: 0 if self._is_active(one) else one.size for one in self.segments if one is not without}
        )

    def _write_mark(self) -> None:
        """Not worth an error: with an older mark some blocks come again after a crash, under the same ids."""
        with contextlib.suppress(OSError):
            self._cursor.write(Mark(*self.head, *self.synced, *self.given_up))

    def _stop_reading(self) -> None:
        if self._reading is not None:
            os.close(self._reading[1])
            self._reading = None

    def _tell_apart(self, copies: list[Segment]) -> None:
        """A copy of what is there is no loss; of what has another's number nobody can say what it was."""
        markers = {segment.marker for segment in self.segments}
        for one in copies:
            one.damage = "its number is that of another one"
            (self._copies if one.marker in markers else self.unreadable).append(one)

    def _heal(self, mark: Mark | None) -> None:
        """Cut torn tails, set aside what holds no sound frame, drop what was drained."""
        sound = []
        for segment in self.segments:
            if mark is not None and segment.number < mark.head_segment:
                segment.path.unlink()
                continue
            synced = segment.size if mark is None or segment.number < mark.synced_segment else 0
            if mark is not None and segment.number == mark.synced_segment:
                synced = mark.synced_offset
            if self._heal_segment(segment, synced):
                sound.append(segment)
        self.segments = sound

    def _heal_segment(self, segment: Segment, synced: int) -> bool:
        """Whether anything of a segment is of use. Bytes from `synced` on belong to nobody until they prove sound."""
        any_frame = False
        for found in scan_segment(segment, 0, synced):
            any_frame = any_frame or isinstance(found, Frame)
            if isinstance(found, Damage):
                segment.damage = segment.damage or found.why
        fd = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            whole = synced
            for found in frames.scan(fd, synced, segment.size, segment.marker, payloads=True):
                if isinstance(found, Damage):
                    break
                whole = found.end
                any_frame = True
            if synced <= whole < segment.size:
                self.torn_bytes += segment.size - whole
                os.ftruncate(fd, whole)
                segment.size = whole
            os.fdatasync(fd)
        finally:
            os.close(fd)
        if segment.size == 0:
            segment.path.unlink()
        elif not any_frame:
            self.unreadable.append(segment)
        return any_frame

    def _first_head(self, mark: Mark | None) -> tuple[int, int]:
        if mark is not None:
            for segment in self.segments:
                if segment.number == mark.head_segment and mark.head_offset <= segment.size:
                    return (mark.head_segment, mark.head_offset)
        return (self.segments[0].number, 0) if self.segments else (self._next, 0)


def _write_all(fd: int, buffers: tuple[bytes, ...], offset: int) -> None:
    """A nearly full disk takes a part first and refuses the rest."""
    written = os.pwritev(fd, buffers, offset)
    data = memoryview(b"".join(buffers))[written:] if written < sum(map(len, buffers)) else memoryview(b"")
    while data:
        offset += written
        written = os.pwrite(fd, data, offset)
        data = data[written:]
