"""The framings, parsers, processors and encoders that come with the agent.

They are announced through the same hooks as a plugin package's, and by nothing else: the chain and the daemon know
them by the names given here.
"""

from __future__ import annotations

from collections.abc import Mapping

from hostagent.hookspecs import Component, Encoder, Framing, Parser, Processor, hookimpl
from hostagent.process.framing.auto import AutoFraming, AutoOptions
from hostagent.process.framing.cri import CriFraming, CriOptions
from hostagent.process.framing.docker_json import DockerJsonFraming, DockerJsonOptions
from hostagent.process.framing.docker_local import DockerLocalFraming, DockerLocalOptions
from hostagent.process.framing.raw import RawFraming, RawOptions
from hostagent.process.message_lines import RawLinesEncoder, RawLinesOptions
from hostagent.process.ndjson import NdjsonEncoder, NdjsonOptions
from hostagent.process.parse_delimiter import DelimiterOptions, DelimiterParser
from hostagent.process.parse_json import JsonOptions, JsonParser
from hostagent.process.parse_regex import RegexOptions, RegexParser
from hostagent.process.processors.drop import Drop, DropOptions
from hostagent.process.processors.fields import (
    AddFields,
    AddFieldsOptions,
    RemoveFields,
    RemoveFieldsOptions,
    Rename,
    RenameOptions,
)
from hostagent.process.processors.mask import Mask, MaskOptions


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
    """Parsers: regex, json and delimiter."""
    return {
        "regex": Component(RegexOptions, lambda options, _wiring: RegexParser(options)),
        "json": Component(JsonOptions, lambda options, _wiring: JsonParser(options)),
        "delimiter": Component(DelimiterOptions, lambda options, _wiring: DelimiterParser(options)),
    }


@hookimpl
def hostagent_register_processors() -> Mapping[str, Component[Processor]]:
    """Processors: drop, keep, mask, add_fields, remove_fields, rename."""
    return {
        "drop": Component(DropOptions, lambda options, _wiring: Drop(options, keep=False)),
        "keep": Component(DropOptions, lambda options, _wiring: Drop(options, keep=True)),
        "mask": Component(MaskOptions, lambda options, _wiring: Mask(options)),
        "add_fields": Component(AddFieldsOptions, lambda options, _wiring: AddFields(options)),
        "remove_fields": Component(RemoveFieldsOptions, lambda options, _wiring: RemoveFields(options)),
        "rename": Component(RenameOptions, lambda options, _wiring: Rename(options)),
    }


@hookimpl
def hostagent_register_encoders() -> Mapping[str, Component[Encoder]]:
    """Encoders: ndjson, and raw for the messages alone."""
    return {
        "ndjson": Component(NdjsonOptions, lambda _options, _wiring: NdjsonEncoder()),
        "raw": Component(RawLinesOptions, lambda _options, _wiring: RawLinesEncoder()),
    }
