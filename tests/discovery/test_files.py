"""The source type `file`: absolute globs in, one target out."""

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostagent.clock import Clock
from hostagent.discovery.builtin import hostagent_register_discoveries
from hostagent.discovery.files import FilesOptions
from hostagent.hookspecs import Wiring
from hostagent.model import Target, TargetChange


def options(raw: Mapping[str, Any]) -> FilesOptions:
    return msgspec.convert(raw, FilesOptions)


def test_one_target_is_published_and_the_thread_is_done(tmp_path: Path) -> None:
    part = hostagent_register_discoveries()["file"]
    assert part.options is FilesOptions
    chosen = options({"include": ["/var/log/*.log", "/srv/**/a.log"], "exclude": ["*.gz", "/srv/old/**"]})
    discovery = part.build(chosen, Wiring("nginx", Clock(), tmp_path))
    published: list[TargetChange] = []
    discovery.run(published.append, threading.Event())
    assert published == [
        TargetChange(
            "added",
            Target(
                id="file:nginx",
                source="nginx",
                paths=("/var/log/*.log", "/srv/**/a.log"),
                exclude=("*.gz", "/srv/old/**"),
                declaration="configuration file",
            ),
        )
    ]
    assert discovery.notices() == []


@pytest.mark.parametrize(
    "raw, reason",
    [
        ({}, "include"),
        ({"include": []}, "include: is empty"),
        ({"include": "/var/log/*.log"}, "array"),
        ({"include": [7]}, "str"),
        ({"include": ["var/log/*.log"]}, "'var/log/*.log' is not an absolute path"),
        ({"include": ["/ok", ""]}, "is not an absolute path"),
        ({"include": ["/var/log/"]}, "names a directory"),
        ({"include": ["/var/../etc/passwd"]}, "'..'"),
        ({"include": ["/var/\0"]}, "NUL"),
        ({"include": ["/ok"], "exclude": [""]}, "exclude: has an empty entry"),
        ({"include": ["/ok"], "exclude": ["logs/*.gz"]}, "is not an absolute path"),
        ({"include": ["/ok"], "excludes": []}, "excludes"),
    ],
)
def test_mistakes_are_told_before_anything_starts(raw: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(reason)):
        options(raw)
