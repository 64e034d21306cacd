"""Waiting for a condition instead of for a time.

A deadline that passes is the failure, told with what was waited for; nothing else in the tests may sleep.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NotInTimeError(AssertionError):
    """A condition did not come true before its deadline."""


def wait_for(
    condition: Callable[[], T],
    what: str,
    *,
    timeout_s: float = 30.0,
    poll_s: float = 0.02,
    so_far: Callable[[], str] = str,
) -> T:
    """Return the first true answer of `condition`; `so_far` tells what was there when the deadline passed.

    It is asked again after a millisecond, then after twice as long each time, and at last every `poll_s`.
    """
    deadline_s = time.monotonic() + timeout_s
    pause_s = min(0.001, poll_s)
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline_s:
            raise NotInTimeError(f"waited {timeout_s:g} s for {what}. {so_far()}".rstrip())
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, poll_s)
