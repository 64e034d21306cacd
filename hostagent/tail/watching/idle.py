"""Files that were closed for want of descriptors: whether anything was written to them since.

Such a file may be deleted before it is opened again. The agent has read it to its end and can't look whether more came;
the kernel can tell. Each of them gets a watch of its own, on the file and not on its name, for as long as it is closed:
it hears every write, whatever the file is called by then and whoever holds it, and when the last of them lets go. It
opens and reads nothing. The reader's thread alone.
"""

from __future__ import annotations

from pathlib import Path

from inotify_simple import INotify, flags

from hostagent.model import FileId
from hostagent.tail.files.identity import filesystem_of, identify
from hostagent.tail.tailer import PLAIN, TailedFile
from hostagent.tail.watching.watcher import EVENTLESS

# One event says all there is to say of a file. It is followed by one that says that the watch is over.
_MASK = flags.MODIFY | flags.DELETE_SELF | flags.ONESHOT
_SETTINGS = Path("/proc/sys/fs/inotify")
_SHARE = 4


class _Ear:
    """One file that is listened to. `dead`: it is deleted and nobody has it open."""

    __slots__ = ("dead", "descriptor", "identity", "tailed")

    def __init__(self, tailed: TailedFile, identity: FileId, descriptor: int) -> None:
        self.tailed = tailed
        self.identity = identity
        self.descriptor = descriptor
        self.dead = False


class IdleWatches:
    """Listens to closed files. `most` at once: by default so many that neither watches nor queued events run short."""

    def __init__(self, most: int | None = None) -> None:
        self._most = _share() if most is None else most
        self._inotify: INotify | None = None
        self._ears: dict[FileId, _Ear] = {}
        self._by_descriptor: dict[int, _Ear] = {}
        self._over: dict[FileId, _Ear] = {}
        self._late: list[TailedFile] = []

    @property
    def any_over(self) -> bool:
        """Whether `take_late` may have something to tell by and by."""
        return bool(self._late or self._over)

    def add(self, tailed: TailedFile) -> None:
        """Listen to an open file that is about to be closed, if all of it was read.

        A root that isn't this host's may be a container's directory below an overlay, in which some kernels hide what
        is written through the overlay.
        """
        if tailed.content is None or tailed.storage != PLAIN or tailed.origin.target.root != "/":
            return
        if not self._has_room():
            return
        fd = tailed.content.fd
        try:
            if filesystem_of(fd) in EVENTLESS:
                return
            if self._inotify is None:
                self._inotify = INotify(nonblocking=True)
            descriptor = self._inotify.add_watch(f"/proc/self/fd/{fd}", _MASK)
            # Asked only now: what is written from here on is heard.
            status = identify(fd)
        except OSError:
            return  # the kernel has no watch to give: then nobody knows
        self._forget(self._by_descriptor.get(descriptor))
        ear = _Ear(tailed, status.id, descriptor)
        self._ears[status.id] = self._by_descriptor[descriptor] = ear
        if not status.size == tailed.tail == tailed.head:
            self._forget(ear)

    def is_quiet(self, tailed: TailedFile) -> bool:
        """Whether all of a closed file was read, and nothing was written to it since."""
        self._listen()
        ear = self._ears.get(tailed.identity)
        return ear is not None and ear.tailed is tailed

    def is_dead(self, tailed: TailedFile) -> bool:
        """Whether that is so for good: it is deleted and nobody has it open."""
        return self.is_quiet(tailed) and self._ears[tailed.identity].dead

    def outlive(self, tailed: TailedFile) -> None:
        """A file that is quiet is over for the reader: go on listening for those who may still write to it."""
        ear = self._ears[tailed.identity]
        if ear.dead:
            self._forget(ear)
        else:
            self._over[ear.identity] = ear

    def forget(self, identity: FileId) -> None:
        """The file is open again, or of no interest any more."""
        self._forget(self._ears.get(identity))

    def forget_file(self, tailed: TailedFile) -> None:
        """The same for a file that is not read any more, unless it is listened to nevertheless."""
        ear = self._ears.get(tailed.identity)
        if ear is not None and ear.tailed is tailed and ear.identity not in self._over:
            self._forget(ear)

    def take_late(self) -> list[TailedFile]:
        """The files that were over, and of which somebody has written more since, as far as anybody knows."""
        self._listen()
        late, self._late = self._late, []
        return late

    def _listen(self) -> None:
        if self._inotify is None:
            return
        for event in self._inotify.read(timeout=0):
            ear = self._by_descriptor.get(event.wd)
            if ear is None:
                continue
            if event.mask & flags.DELETE_SELF:
                ear.dead = True
                del self._by_descriptor[event.wd]
                if ear.identity not in self._over:
                    continue
            elif event.mask & flags.MODIFY and ear.identity in self._over:
                self._late.append(ear.tailed)
            self._forget(ear)

    def _has_room(self) -> bool:
        self._listen()
        if len(self._ears) >= self._most:
            # Files that are over may be anywhere, for years. What becomes of the oldest is not known from now on.
            over = next(iter(self._over.values()), None)
            if over is not None:
                self._late.append(over.tailed)
                self._forget(over)
        return len(self._ears) < self._most

    def _forget(self, ear: _Ear | None) -> None:
        if ear is None:
            return
        self._ears.pop(ear.identity, None)
        self._over.pop(ear.identity, None)
        if self._by_descriptor.pop(ear.descriptor, None) is not None and self._inotify is not None:
            try:
                self._inotify.rm_watch(ear.descriptor)
            except OSError:  # it has said what it had to say
                pass

    def close(self) -> None:
        """Give all watches back."""
        if self._inotify is not None:
            self._inotify.close()


def _share() -> int:
    """A file takes one watch, and two places in the queue of events at most."""
    try:
        settings = [int((_SETTINGS / name).read_text()) for name in ("max_user_watches", "max_queued_events")]
    except (OSError, ValueError):
        return 0
    return min(settings) // _SHARE
