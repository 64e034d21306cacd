"""The auto framing: looks at the first line of what it is given and lets the framing that wrote it do the work.

First stage of a chain where nobody said what the files are. Every call sees another part of a file, so every call
decides anew, by its first line alone: only a line of exactly a container runtime's form counts as one, and lines that
are merely JSON are raw.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from hostagent.hookspecs import Framed, Framing
from hostagent.model import Scalar
from hostagent.process.framing.cri import CriFraming
from hostagent.process.framing.docker_json import DockerJsonFraming
from hostagent.process.framing.raw import RawFraming

TIME = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
_CRI = re.compile(rb"%s std(?:out|err) [PF](?::[^ \n]*)? " % TIME)
_DOCKER = re.compile(
    rb'\{"log":"(?:[^"\\\n]++|\\[^\n])*+","stream":"std(?:out|err)",(?:"attrs":\{[^\n]*\},)?"time":"%s"\}(?:\n|\Z)'
    % TIME
)


class AutoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The auto framing has no options."""


class AutoFraming:
    """One of raw, docker-json and cri, chosen per chunk."""

    def __init__(self) -> None:
        self._raw = RawFraming()
        self._docker = DockerJsonFraming()
        self._cri = CriFraming()

    def frame(self, data: bytes, constants: Mapping[str, Scalar], *, final: bool, limit_bytes: int) -> Framed:
        return self._chosen(data).frame(data, constants, final=final, limit_bytes=limit_bytes)

    def _chosen(self, data: bytes) -> Framing:
        if _CRI.match(data):
            return self._cri
        if _DOCKER.match(data):
            return self._docker
        return self._raw
