"""Makes a lane out of an output's configuration and the parts it names.

Owns which encoders are the same and which compression an output gets when none was asked for. Nothing is started here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from hostagent.config.model import OutputConfig, PartConfig
from hostagent.config.parts import Parts
from hostagent.deliver.compress import build_compressor
from hostagent.deliver.credits import Credits
from hostagent.deliver.lane import Lane
from hostagent.deliver.sender import Journal
from hostagent.deliver.transfer import DeadLetterBox
from hostagent.hookspecs import Wiring
from hostagent.model import Block


def encoder_key(encoding: PartConfig) -> str:
    """Equal for encoders that give the same bytes for the same batch."""
    options = msgspec.json.encode(encoding.options, order="deterministic")
    return f"{encoding.type}:{hashlib.blake2b(options, digest_size=8).hexdigest()}"


def compression_of(config: OutputConfig) -> str:
    """What was asked for, else what suits the output: its options class may say so in `default_compression`."""
    own: str = getattr(type(config.options), "default_compression", "zstd")
    return config.compression or own


def build_lane(
    config: OutputConfig,
    parts: Parts,
    wiring: Wiring,
    *,
    journal: Journal,
    epoch: str,
    dead_letters: DeadLetterBox,
    credits: Credits,  # noqa: A002 - the pool's name everywhere else
    on_room: Callable[[], None],
    on_acked: Callable[[Block], None],
) -> Lane:
    """Build an output's encoder, compressor, output and lane."""
    return Lane(
        name=config.name,
        encoder=parts.encoders[config.encoding.type].build(config.encoding.options, wiring),
        encoder_key=encoder_key(config.encoding),
        output=parts.outputs[config.type].build(config.options, wiring),
        compressor=build_compressor(compression_of(config), config.compression_level),
        journal=journal,
        epoch=epoch,
        dead_letters=dead_letters,
        credits=credits,
        clock=wiring.clock,
        max_block_bytes=config.block.max_bytes,
        max_wait_s=config.block.max_wait_s,
        on_room=on_room,
        on_acked=on_acked,
    )
