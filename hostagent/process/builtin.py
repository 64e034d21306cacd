"""The framings, parsers, processors and encoders that come with the agent.

They are announced through the same hooks as a plugin package's, and by nothing else: the chain and the daemon know
them by the names given here.
"""

from __future__ import annotations

from collections.abc import Mapping

from hostagent.hookspecs import Component, Encoder, Framing, Parser, hookimpl
from hostagent.process.framing.auto import AutoFraming, AutoOptions
from hostagent.process.framing.cri import CriFraming, CriOptions
from hostagent.process.framing.docker_json import DockerJsonFraming, DockerJsonOptions
from hostagent.process.framing.docker_local import DockerLocalFraming, DockerLocalOptions
from hostagent.process.framing.raw import RawFraming, RawOptions
from hostagent.process.ndjson import NdjsonEncoder, NdjsonOptions
from hostagent.process.regex import RegexOptions, RegexParser


@hookimpl
def hostagent_register_framings() -> Mapping[str, Component[Framing]]:
    """Framings: raw, docker-json, docker-local, cri, and auto which chooses among the texts."""
    return {
        "raw": Component(RawOptions, lambda _options, _wiring: RawFraming()),
        "docker-json": Component(DockerJsonOptions, lambda _options, _wiring: DockerJsonFraming()),
        "docker-local": Component(DockerLocalOptions, lambda _options, _wiring: DockerLocalFraming()),
        "cri": Component(CriOptions, lambda _options, _wiring: CriFraming()),
        "auto": Component(AutoOptions, lambda _options, _wiring: AutoFraming()),
    }


@hookimpl
def hostagent_register_parsers() -> Mapping[str, Component[Parser]]:
    """Parsers: regex."""
    return {"regex": Component(RegexOptions, lambda options, _wiring: RegexParser(options))}


@hookimpl
def hostagent_register_encoders() -> Mapping[str, Component[Encoder]]:
    """Encoders: ndjson."""
    return {"ndjson": Component(NdjsonOptions, lambda _options, _wiring: NdjsonEncoder())}
