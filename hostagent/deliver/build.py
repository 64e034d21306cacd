"""Makes a lane out of an output's configuration and the parts it names.

Owns which encoders are the same, which compression an output gets when none was asked for, and what happens when its
spool can't be opened: the agent starts all the same. Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from hostagent.config.model import OutputConfig, PartConfig
from hostagent.config.parts import Parts
from hostagent.deliver.compress import build_compressor
from hostagent.deliver.credits import Credits
from hostagent.deliver.lane import Lane
from hostagent.deliver.late_spool import LateSpool
from hostagent.deliver.transfer import DeadLetterBox
from hostagent.digest import blake2b
from hostagent.errors import StateError
from hostagent.hookspecs import Wiring
from hostagent.model import Block
from hostagent.state.checkpoint import Checkpoint
from hostagent.state.faults import os_fault
from hostagent.state.spool.spool import Spool
from hostagent.state.spool.spooled import SPOOL_DIRECTORY


def encoder_key(encoding: PartConfig) -> str:
    """Equal for encoders that give the same bytes for the same batch."""
    options = msgspec.json.encode(encoding.options, order="deterministic")
    return f"{encoding.type}:{blake2b(options, digest_size=8).hexdigest()}"


def compression_of(config: OutputConfig) -> str:
    """What was asked for, else what suits the output: its options class may say so in `default_compression`."""
    own: str = getattr(type(config.options), "default_compression", "zstd")
    return config.compression or own


def build_lane(
    config: OutputConfig,
    parts: Parts,
    wiring: Wiring,
    *,
    checkpoint: Checkpoint,
    dead_letters: DeadLetterBox,
    credits: Credits,  # noqa: A002 - the pool's name everywhere else
    on_room: Callable[[], None],
    on_acked: Callable[[Block], None],
) -> Lane:
    """Build an output's encoder, compressor, output, spool and lane; what an earlier run spooled counts as acked."""
    return Lane(
        name=config.name,
        encoder=parts.encoders[config.encoding.type].build(config.encoding.options, wiring),
        encoder_key=encoder_key(config.encoding),
        output=parts.outputs[config.type].build(config.options, wiring),
        make_compressor=partial(build_compressor, compression_of(config), config.compression_level),
        journal=checkpoint,
        epoch=checkpoint.epoch,
        spool=_open_spool(config, wiring, checkpoint),
        dead_letters=dead_letters,
        divisions=checkpoint,
        credits=credits,
        clock=wiring.clock,
        max_block_bytes=config.block.max_bytes,
        max_wait_s=config.block.max_wait_s,
        on_room=on_room,
        on_acked=on_acked,
    )


def _open_spool(config: OutputConfig, wiring: Wiring, checkpoint: Checkpoint) -> Spool | LateSpool:
    """The spool of an output, or what tries again when its directory can't be used now."""

    def open_spool() -> Spool:
        try:
            return Spool.open(wiring.data_dir, config.name, config.spool, wiring.clock, checkpoint)
        except OSError as error:
            raise os_fault(wiring.data_dir / SPOOL_DIRECTORY, "use the spool", error) from error

    try:
        return open_spool()
    except StateError as error:
        return LateSpool(config.name, open_spool, wiring.clock, error)
