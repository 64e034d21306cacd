"""The standard streams a command was started with: they may be closed, on a full disk, or a terminal.

Stands before every command. It keeps the descriptors 0 to 2 taken, says why an answer could not be printed, and lets no
control character of a log line reach a terminal. What is printed is the commands' affair.
"""

from __future__ import annotations

import os
import sys
import traceback

import click

from hostagent.errors import HostagentError

_STDIN, _STDOUT, _STDERR = range(3)


def keep_descriptors() -> None:
    """Take the descriptors that whoever started this process has closed.

    The kernel gives the lowest free number to the next file that is opened: an output that prints to 1 would write its
    records into the lock file, say. What takes the place of standard output can't be written, so nothing counts as
    printed.
    """
    for fd in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if fd == _STDERR else os.O_RDONLY)
            os.set_inheritable(fd, True)
    if sys.stdin is None:
        sys.stdin = open(_STDIN, closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", closefd=False)  # noqa: SIM115 - as long as the process


def unwritable_stdout(error: OSError) -> HostagentError | None:
    """What to tell when standard output could not be written; None when `error` has another cause."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, BrokenPipeError) or not frames or frames[-1].f_code is not click.echo.__code__:
        return None  # click ends quietly when whoever read a pipe has gone
    # What is still in Python's buffer would fail once more at the end of the process.
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    return HostagentError(f"standard output can't be written: {error.strerror}")


def visible_lines(text: str) -> str:
    """Text of several lines with everything made visible but the ends of its lines."""
    from hostagent.observe.log import visible

    return "\n".join(visible(line) for line in text.split("\n"))


def print_bytes(body: bytes) -> None:
    """Records as they are; on a terminal with control characters and marks that turn the text round made visible."""
    if body and not body.endswith(b"\n"):
        body += b"\n"
    if sys.stdout is not None and sys.stdout.isatty():
        click.echo(visible_lines(body.decode("utf-8", "surrogateescape")), nl=False)
    else:
        click.echo(body, nl=False)
