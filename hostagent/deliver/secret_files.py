"""Secrets and certificates that live in files and may be replaced while the agent runs.

Owns noticing that a file has changed. What is read here goes into a request and nowhere else: no log, no error text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from hostagent.errors import TemporaryError

_LONGEST_BYTES = 64 * 1024
Mark = tuple[int, int, int, int]


class TlsFiles(NamedTuple):
    """The files a TLS connection is made with, and the name its certificate must be for."""

    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None


def mark_of(paths: Sequence[str]) -> tuple[Mark, ...]:
    """Changes when one of the files is replaced or rewritten."""
    return tuple(_stat(path) for path in paths)


def _stat(path: str) -> Mark:
    try:
        found = os.stat(path)
    except OSError as error:
        raise unreadable(path, error) from error
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def unreadable(path: str, error: OSError) -> TemporaryError:
    """What to say about a file that is needed for every request and can't be read now."""
    return TemporaryError(f"{path} can't be read ({error.strerror}): make it readable for the agent")


class SecretFile:
    """The one line in a file, read again when the file has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._mark: tuple[Mark, ...] = ()
        self._value = ""

    def value(self) -> str:
        """The secret as it is now, without the line end; raises TemporaryError when it can't be read or used."""
        mark = mark_of((self._path,))
        if mark != self._mark:
            try:
                with open(self._path, "rb") as file:
                    content = file.read(_LONGEST_BYTES)
            except OSError as error:
                raise unreadable(self._path, error) from error
            self._value = self._checked(content)
            self._mark = mark
        return self._value

    def _checked(self, content: bytes) -> str:
        text = content.strip().decode("utf-8", "replace")
        if not text:
            raise TemporaryError(f"{self._path} is empty: write the secret into it")
        if not text.isprintable():
            raise TemporaryError(f"{self._path} does not hold a single line of text: write just the secret into it")
        return text
