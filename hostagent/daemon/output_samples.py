"""One output's figures under their names in `observe.catalogue`: what it delivered, what waits, what was refused.

Reports asks for them at each scrape. Pure: it turns what a lane and the dead letters say into samples and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hostagent.config.model import OutputConfig
from hostagent.deliver.status import LaneStatus
from hostagent.observe.metrics import Sample
from hostagent.state.dead_letters import DeadLetterStats


def output_samples(
    lane: LaneStatus, letters: DeadLetterStats | None, config: OutputConfig, now_ns: int
) -> Iterator[Sample]:
    """All of an output's samples; without those of dead letters that can't be read now, which nobody knows."""
    yield Sample("hostagent_dead_letters_max_bytes", config.dead_letters.max_bytes, (lane.name,))
    yield Sample("hostagent_spool_max_bytes", config.spool.max_bytes, (lane.name,))
    for values in (_delivery(lane), _spool(lane, now_ns), _dead_letters(letters) if letters is not None else {}):
        for metric, value in values.items():
            yield Sample(metric, value, (lane.name,))


def _delivery(lane: LaneStatus) -> Mapping[str, float]:
    counters = lane.counters
    return {
        "hostagent_output_up": lane.state == "ok",
        "hostagent_output_cut_blocks_total": counters.blocks_cut,
        "hostagent_output_cut_records_total": counters.records_cut,
        "hostagent_output_cut_bytes_total": counters.raw_bytes_cut,
        "hostagent_output_encoded_bytes_total": counters.encoded_bytes_cut,
        "hostagent_output_delivered_blocks_total": counters.blocks,
        "hostagent_output_delivered_records_total": counters.records,
        "hostagent_output_delivered_bytes_total": counters.raw_bytes,
        "hostagent_output_compressed_bytes_total": counters.compressed_bytes,
        "hostagent_output_requests_total": counters.requests,
        "hostagent_output_retries_total": counters.retries,
        "hostagent_output_splits_total": counters.splits,
        "hostagent_output_dead_letters_total": counters.dead_letters,
        "hostagent_output_sender_crashes_total": counters.crashes,
        "hostagent_output_queued_blocks": lane.queued_blocks,
        "hostagent_output_unacked_blocks": lane.unacked_blocks,
        "hostagent_output_unsent_bytes": lane.unsent_bytes,
    }


def _spool(lane: LaneStatus, now_ns: int) -> Mapping[str, float]:
    spool = lane.spool
    values: dict[str, float] = {
        "hostagent_spool_usable": lane.spool_usable,
        "hostagent_spool_bytes": spool.disk_bytes,
        "hostagent_spool_blocks": spool.blocks,
        "hostagent_spool_records": spool.records,
        "hostagent_spool_log_bytes": spool.raw_bytes,
        "hostagent_spool_oldest_age_seconds": max(0, now_ns - (spool.oldest_ns or now_ns)) / 1e9,
    }
    for verb, amount in (("spooled", spool.spooled), ("drained", spool.drained), ("dropped", spool.dropped)):
        values[f"hostagent_spool_{verb}_blocks_total"] = amount.blocks
        values[f"hostagent_spool_{verb}_records_total"] = amount.records
        values[f"hostagent_spool_{verb}_log_bytes_total"] = amount.raw_bytes
    return values


def _dead_letters(letters: DeadLetterStats) -> Mapping[str, float]:
    return {
        "hostagent_dead_letters_bytes": letters.disk_bytes,
        "hostagent_dead_letters_records": letters.records,
        "hostagent_dead_letters_taken_records_total": letters.taken,
        "hostagent_dead_letters_requeued_records_total": letters.requeued,
        "hostagent_dead_letters_dropped_records_total": letters.dropped,
    }
