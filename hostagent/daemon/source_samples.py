"""One source's figures under their names in `observe.catalogue`: what was read and lost, how far outputs are behind.

Reports asks for them at each scrape. Pure: it turns what the reader and the ledger say into samples and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hostagent.observe.metrics import Sample
from hostagent.state.checkpoint import LossTotal
from hostagent.tail.feed import Counters
from hostagent.tail.views import FileView


def source_samples(
    name: str, counters: Counters, files: Sequence[FileView], lost: Sequence[LossTotal], targets: int
) -> Iterator[Sample]:
    """All of a source's samples but those that each of its outputs has."""
    for metric, value in {
        "hostagent_source_read_bytes_total": counters.raw_bytes,
        "hostagent_source_read_records_total": counters.records,
        "hostagent_source_dropped_records_total": counters.dropped,
        "hostagent_source_unparsed_records_total": counters.unparsed,
        "hostagent_source_invalid_utf8_total": counters.invalid_utf8,
        "hostagent_source_losses_total": sum(total.losses for total in lost),
        "hostagent_source_lost_bytes_total": sum(total.bytes for total in lost),
        "hostagent_source_targets": targets,
        "hostagent_source_files": len(files),
        "hostagent_source_files_open": sum(one.is_open for one in files),
    }.items():
        yield Sample(metric, value, (name,))


def lag_samples(name: str, output: str, files: Sequence[FileView], now_s: float) -> Iterator[Sample]:
    """How far one output is behind in a source's files."""
    behind = [one for one in files if one.behind(output)]
    since_s = min((one.behind_since_s or now_s for one in behind), default=now_s)
    yield Sample("hostagent_source_lag_bytes", sum(one.behind(output) for one in behind), (name, output))
    yield Sample("hostagent_source_lag_seconds", now_s - since_s, (name, output))
