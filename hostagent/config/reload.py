"""What changed between two configurations, so that a reload touches only that.

Compares values, so a file saved again with other spacing or comments changes nothing. A source or output that is the
same keeps its files, queues and connections; the daemon decides how to swap the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from hostagent.config.model import Config

Named = TypeVar("Named")


class Difference(msgspec.Struct, frozen=True):
    """Names of one kind that came, went or mean something else now."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


class Reload(msgspec.Struct, frozen=True, kw_only=True):
    """The whole difference. `restart` are sections that only a restart can change."""

    sources: Difference = Difference()
    outputs: Difference = Difference()
    restart: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sources or self.outputs or self.restart)


def compare(old: Config, new: Config) -> Reload:
    """What a reload from `old` to `new` has to do."""
    sections = ("data_dir", "host", "api", "limits", "log")
    return Reload(
        sources=_difference(old.sources, new.sources),
        outputs=_difference(old.outputs, new.outputs),
        restart=tuple(name for name in sections if getattr(old, name) != getattr(new, name)),
    )


def _difference(old: Mapping[str, Named], new: Mapping[str, Named]) -> Difference:
    return Difference(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
    )
