"""The chain of one source: bytes of a file in, batches of records out.

Charset, framing, multiline, parser and processors in that order, joined here and nowhere else. A chain is a pure
function of the bytes, the constants and its configuration: it keeps nothing between two calls, does no I/O and reads no
clock, so the same bytes give the same batches before and after a crash. `digest` names that configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from hostagent.config.load import read_part, read_section
from hostagent.config.model import MultilineConfig, PartConfig, SourceConfig
from hostagent.config.parts import Parts
from hostagent.digest import blake2b
from hostagent.errors import ConfigError, ConfigProblem
from hostagent.hookspecs import Framed, Framing, Parser, Processor, Wiring
from hostagent.model import Batch, Processed, Scalar, Target
from hostagent.process.batches import row_count
from hostagent.process.charset import Charset, Utf8, charset_of
from hostagent.process.framing import joining
from hostagent.process.framing.docker_local import DockerLocalFraming, FrameBreaks
from hostagent.process.framing.raw import RawFraming
from hostagent.process.lines import LineBreaks
from hostagent.process.multiline import Multiline
from hostagent.process.precedence import beside_constants
from hostagent.process.repair import InvalidUtf8, repair

# Counted up whenever the same bytes under the same configuration come out as other records than before.
PROCESS_VERSION = 1
# A runtime writes the parts of a line one right after the other; what has not come by then is not coming.
PARTS_FLUSH_AFTER_S = 30.0


class Chain:
    """What stands between a file's bytes and the encoders, for one source or one target's declaration.

    `joins_lines`: whether a record may span lines, and so the end of one file and the beginning of the next.
    `flush_after_s`: how long whole lines that await more may stay unconsumed before they are given in again with
    `final`; None if none ever are. `reach_bytes`: given that many bytes, a call consumes some of them.
    """

    def __init__(
        self,
        *,
        framing: Framing,
        multiline: Multiline | None = None,
        parser: Parser | None = None,
        processors: tuple[Processor, ...] = (),
        fields: Mapping[str, Scalar] | None = None,
        invalid_utf8: InvalidUtf8 = "replace",
        max_line_bytes: int = 1 << 20,
        charset: Charset | None = None,
        breaks: LineBreaks | None = None,
        joins_lines: bool = True,
        flush_after_s: float | None = None,
        digest: str = "",
    ) -> None:
        self._charset = charset or Utf8()
        self._breaks = breaks or self._charset
        self._framing = framing
        self._multiline = multiline
        self._parser = parser
        self._processors = processors
        self._fields = dict(fields or {})
        self._invalid_utf8 = invalid_utf8
        self._max_line_bytes = max_line_bytes
        self.flush_after_s = flush_after_s
        self.reach_bytes = joining.reach_bytes(max_line_bytes) + (multiline.window_bytes if multiline else 0)
        self.joins_lines = joins_lines
        self.digest = digest

    def whole_lines(self, data: bytes) -> int:
        """How many of these bytes are whole lines, in the file's own encoding."""
        return self._breaks.last_line_end(data, 0, len(data))

    def process(self, data: bytes, constants: Mapping[str, Scalar], *, final: bool) -> Processed:
        """Make batches of every record that has ended; with `final`, of everything there is."""
        constants = {**constants, **self._fields}
        framed, invalid = self._framed(data, constants, final=final)
        if self._multiline is not None:
            grouped = self._multiline.group(framed, data, final=final)
            if invalid and grouped.consumed < framed.consumed:
                invalid = self._framed(data[: grouped.consumed], constants, final=True)[1]
            framed = grouped
        if not self._charset.verbatim:
            invalid = self._charset.invalid_lines(data[: framed.consumed])
        done = Processed(batches=[], consumed=framed.consumed, invalid_utf8=invalid)
        for batch in framed.batches:
            self._finish(batch, done)
        return done

    def _framed(self, data: bytes, constants: Mapping[str, Scalar], *, final: bool) -> tuple[Framed, int]:
        """The records in valid UTF-8, and how many were not."""
        framed = self._framing.frame(data, constants, final=final, limit_bytes=self._max_line_bytes)
        batches, invalid = [], 0
        for batch in framed.batches:
            repaired, count = repair(batch, self._invalid_utf8)
            batches += repaired
            invalid += count
        return framed._replace(batches=batches), invalid

    def _finish(self, batch: Batch, done: Processed) -> None:
        batches = [batch]
        if self._parser is not None:
            parsed, unparsed = self._parser.parse(batch)
            batches = [beside_constants(one) for one in parsed]
            done.unparsed += unparsed
        if self._processors:
            before = sum(map(row_count, batches))
            for processor in self._processors:
                batches = [made for one in batches for made in processor.process(one)]
            done.dropped += before - sum(map(row_count, batches))
        done.batches += batches


def build_chain(source: SourceConfig, parts: Parts, wiring: Wiring, target: Target | None = None) -> Chain:
    """The chain of a source, or of one of its targets that declares a format, multiline or parser of its own.

    ConfigError names everything in the declaration that can't be used.
    """
    source = declared(source, parts, target)
    charset = _charset(source)
    framing: Framing = RawFraming(charset)
    if charset.verbatim:
        framing = parts.framings[source.format.type].build(source.format.options, wiring)
    breaks: LineBreaks = FrameBreaks() if isinstance(framing, DockerLocalFraming) else charset
    parser = parts.parsers[source.parse.type].build(source.parse.options, wiring) if source.parse else None
    processors = tuple(parts.processors[part.type].build(part.options, wiring) for part in source.processors)
    multiline = _multiline(source.multiline, f"source {source.name}") if source.multiline else None
    flush_after_s = None if source.format.type == "raw" else PARTS_FLUSH_AFTER_S
    if source.multiline is not None:
        flush_after_s = source.multiline.flush_after_s
    return Chain(
        framing=framing,
        multiline=multiline,
        parser=parser,
        processors=processors,
        fields=source.fields,
        invalid_utf8=source.invalid_utf8,
        max_line_bytes=source.max_line_bytes,
        charset=charset,
        breaks=breaks,
        joins_lines=flush_after_s is not None,
        flush_after_s=flush_after_s,
        digest=digest_of(source),
    )


def declared(source: SourceConfig, parts: Parts, target: Target | None) -> SourceConfig:
    """The source with what its target declares in the place of its own."""
    if target is None:
        return source
    where = target.declaration or f"target {target.id}"
    changes: dict[str, Any] = {}
    if target.format is not None:
        changes["format"] = read_part("framing", target.format, parts.framings, where)
    if target.multiline is not None:
        changes["multiline"] = read_section(MultilineConfig, target.multiline, where)
    if target.parse is not None:
        changes["parse"] = read_part("parser", target.parse, parts.parsers, where)
    return msgspec.structs.replace(source, **changes)


def digest_of(source: SourceConfig) -> str:
    """A name for everything in a source's configuration that shows in its records, and for this version of the code."""
    made_of = [
        PROCESS_VERSION,
        *(_described(part) for part in (source.format, source.parse, *source.processors)),
        # When lines are given up waiting for shows in which bytes are one block, not in what becomes of them.
        msgspec.structs.replace(source.multiline, flush_after_s=1.0) if source.multiline else None,
        source.fields,
        source.encoding,
        source.invalid_utf8,
        source.max_line_bytes,
    ]
    return blake2b(msgspec.json.encode(made_of, enc_hook=repr), digest_size=16).hexdigest()


def _described(part: PartConfig | None) -> tuple[str, msgspec.Struct] | None:
    return None if part is None else (part.type, part.options)


def _charset(source: SourceConfig) -> Charset:
    place = f"source {source.name}"
    try:
        found = charset_of(source.encoding)
    except ValueError as error:
        raise ConfigError([ConfigProblem(place, 0, 0, f"encoding: {error}")]) from None
    if not found.verbatim and source.format.type not in ("raw", "auto"):
        message = f"encoding: files in {source.encoding!r} can't have the format {source.format.type!r}, which is UTF-8"
        raise ConfigError([ConfigProblem(place, 0, 0, message, "leave out `encoding`, or use `format: raw`")])
    return found


def _multiline(config: MultilineConfig, place: str) -> Multiline:
    try:
        return Multiline(config)
    except ValueError as error:
        raise ConfigError([ConfigProblem(place, 0, 0, f"multiline: {error}")]) from None
