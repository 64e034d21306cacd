"""Every metric the agent exposes: name, type, help and labels, in the order in which they are shown.

The one list that the daemon fills, `/metrics` renders and docs/metrics.md explains. Labels are names from the
configuration: never a path, an address or text from a log, whose number nobody bounds.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

BY_SOURCE = ("source",)
BY_OUTPUT = ("output",)
BY_SOURCE_AND_OUTPUT = ("source", "output")


class Metric(NamedTuple):
    """One metric family."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


AGENT = (
    Metric("hostagent_build_info", "gauge", "Always 1; the labels say what is running.", ("version", "python")),
    Metric("hostagent_healthy", "gauge", "1 while every health check passes."),
    Metric("hostagent_ready", "gauge", "1 once every source is being watched, until the agent stops."),
    Metric("hostagent_notices", "gauge", "Notices that `hostagent status` shows right now."),
    Metric("hostagent_reader_heartbeat_age_seconds", "gauge", "Seconds since the reader last went round its loop."),
    Metric("hostagent_inflight_bytes", "gauge", "Bytes of encoded records held in memory for all outputs."),
)

TAIL = (
    Metric("hostagent_files_known", "gauge", "File generations the checkpoint has a row for."),
    Metric("hostagent_files_open", "gauge", "Log files held open."),
    Metric("hostagent_directories_watched", "gauge", "Directories with an inotify watch."),
    Metric("hostagent_directories_polled", "gauge", "Directories that are polled because they can't be watched."),
    Metric("hostagent_watcher_overflows_total", "counter", "Times the kernel dropped events and all was rescanned."),
    Metric("hostagent_rescans_total", "counter", "Scans of directories for files that events did not tell."),
)

SOURCES = (
    Metric("hostagent_source_read_bytes_total", "counter", "Bytes of log files read and processed.", BY_SOURCE),
    Metric("hostagent_source_read_records_total", "counter", "Records made of those bytes.", BY_SOURCE),
    Metric("hostagent_source_dropped_records_total", "counter", "Records a processor dropped.", BY_SOURCE),
    Metric("hostagent_source_unparsed_records_total", "counter", "Records the parser could not parse.", BY_SOURCE),
    Metric("hostagent_source_invalid_utf8_total", "counter", "Records with bytes that are no valid text.", BY_SOURCE),
    Metric("hostagent_source_losses_total", "counter", "Entries made in the loss ledger.", BY_SOURCE),
    Metric("hostagent_source_lost_bytes_total", "counter", "Bytes in those entries, where known.", BY_SOURCE),
    Metric("hostagent_source_targets", "gauge", "Targets the source's discovery declares.", BY_SOURCE),
    Metric("hostagent_source_files", "gauge", "Files that belong to the source.", BY_SOURCE),
    Metric("hostagent_source_files_open", "gauge", "Files of the source that are held open.", BY_SOURCE),
    Metric(
        "hostagent_source_lag_bytes",
        "gauge",
        "Bytes in the source's files that the output has neither acked nor spooled.",
        BY_SOURCE_AND_OUTPUT,
    ),
    Metric(
        "hostagent_source_lag_seconds",
        "gauge",
        "Seconds since the oldest of these bytes was first seen; 0 when there is none.",
        BY_SOURCE_AND_OUTPUT,
    ),
)

OUTPUTS = (
    Metric("hostagent_output_up", "gauge", "1 while the output delivers, 0 while it retries or spools.", BY_OUTPUT),
    Metric("hostagent_output_cut_blocks_total", "counter", "Blocks cut for the output.", BY_OUTPUT),
    Metric("hostagent_output_cut_records_total", "counter", "Records in those blocks.", BY_OUTPUT),
    Metric("hostagent_output_cut_bytes_total", "counter", "Bytes of log files in those blocks.", BY_OUTPUT),
    Metric("hostagent_output_encoded_bytes_total", "counter", "Bytes of records as encoded.", BY_OUTPUT),
    Metric("hostagent_output_delivered_blocks_total", "counter", "Blocks the backend acked.", BY_OUTPUT),
    Metric("hostagent_output_delivered_records_total", "counter", "Records the backend acked.", BY_OUTPUT),
    Metric("hostagent_output_delivered_bytes_total", "counter", "Bytes of log files the backend acked.", BY_OUTPUT),
    Metric("hostagent_output_compressed_bytes_total", "counter", "Bytes of acked bodies after compression.", BY_OUTPUT),
    Metric("hostagent_output_requests_total", "counter", "Requests made, repeated ones included.", BY_OUTPUT),
    Metric("hostagent_output_retries_total", "counter", "Requests that were repeated.", BY_OUTPUT),
    Metric(
        "hostagent_output_splits_total", "counter", "Bodies halved because the backend found them too large.", BY_OUTPUT
    ),
    Metric("hostagent_output_dead_letters_total", "counter", "Records put among the dead letters.", BY_OUTPUT),
    Metric("hostagent_output_sender_crashes_total", "counter", "Unexpected errors in the output's sender.", BY_OUTPUT),
    Metric("hostagent_output_queued_blocks", "gauge", "Blocks waiting in memory.", BY_OUTPUT),
    Metric("hostagent_output_unacked_blocks", "gauge", "Blocks cut and not acked yet.", BY_OUTPUT),
    Metric("hostagent_output_unsent_bytes", "gauge", "Encoded bytes cut and not delivered yet.", BY_OUTPUT),
)

WAITING = (
    Metric(
        "hostagent_spool_usable",
        "gauge",
        "1 while blocks could be spooled, full or not; 0 while its disk refuses.",
        BY_OUTPUT,
    ),
    Metric("hostagent_spool_bytes", "gauge", "Bytes of disk the output's spool takes.", BY_OUTPUT),
    Metric("hostagent_spool_max_bytes", "gauge", "Bytes of disk the output's spool may take.", BY_OUTPUT),
    Metric("hostagent_spool_blocks", "gauge", "Blocks that wait in the output's spool.", BY_OUTPUT),
    Metric("hostagent_spool_records", "gauge", "Records in those blocks.", BY_OUTPUT),
    Metric("hostagent_spool_log_bytes", "gauge", "Bytes of log files in those blocks.", BY_OUTPUT),
    Metric(
        "hostagent_spool_oldest_age_seconds",
        "gauge",
        "Seconds since the oldest of those blocks was begun; 0 when none waits.",
        BY_OUTPUT,
    ),
    Metric("hostagent_spool_spooled_blocks_total", "counter", "Blocks made durable in the spool.", BY_OUTPUT),
    Metric("hostagent_spool_spooled_records_total", "counter", "Records in those blocks.", BY_OUTPUT),
    Metric("hostagent_spool_spooled_log_bytes_total", "counter", "Bytes of log files in those blocks.", BY_OUTPUT),
    Metric(
        "hostagent_spool_drained_blocks_total",
        "counter",
        "Blocks of the spool that are done: delivered or dead-lettered.",
        BY_OUTPUT,
    ),
    Metric("hostagent_spool_drained_records_total", "counter", "Records in those blocks.", BY_OUTPUT),
    Metric("hostagent_spool_drained_log_bytes_total", "counter", "Bytes of log files in those blocks.", BY_OUTPUT),
    Metric(
        "hostagent_spool_dropped_blocks_total",
        "counter",
        "Blocks of the spool that were given up: to make room, or damaged.",
        BY_OUTPUT,
    ),
    Metric("hostagent_spool_dropped_records_total", "counter", "Records in those blocks.", BY_OUTPUT),
    Metric("hostagent_spool_dropped_log_bytes_total", "counter", "Bytes of log files in those blocks.", BY_OUTPUT),
    Metric("hostagent_dead_letters_bytes", "gauge", "Bytes of disk the output's dead letters take.", BY_OUTPUT),
    Metric("hostagent_dead_letters_max_bytes", "gauge", "Bytes of disk the output's dead letters may take.", BY_OUTPUT),
    Metric("hostagent_dead_letters_records", "gauge", "Records kept among the output's dead letters.", BY_OUTPUT),
    Metric(
        "hostagent_dead_letters_taken_records_total",
        "counter",
        "Records that came among the dead letters, known ones left out.",
        BY_OUTPUT,
    ),
    Metric(
        "hostagent_dead_letters_requeued_records_total",
        "counter",
        "Dead letters that were sent again on request, and done.",
        BY_OUTPUT,
    ),
    Metric(
        "hostagent_dead_letters_dropped_records_total",
        "counter",
        "Dead letters given up to stay within the bound.",
        BY_OUTPUT,
    ),
)

STATE = (
    Metric("hostagent_checkpoint_healthy", "gauge", "1 while positions can be committed."),
    Metric("hostagent_checkpoint_commits_total", "counter", "Transactions committed."),
    Metric("hostagent_checkpoint_commit_failures_total", "counter", "Transactions that failed and are tried again."),
)

PROCESS = (
    Metric("process_cpu_seconds_total", "counter", "CPU time the agent has used, user and system."),
    Metric("process_resident_memory_bytes", "gauge", "Memory the agent holds in RAM."),
    Metric("process_open_fds", "gauge", "Open file descriptors."),
    Metric("process_max_fds", "gauge", "File descriptors the agent may have open."),
    Metric("process_threads", "gauge", "Threads of the agent."),
    Metric("process_start_time_seconds", "gauge", "When the agent started, in seconds since the epoch."),
)

CATALOGUE = AGENT + TAIL + SOURCES + OUTPUTS + WAITING + STATE + PROCESS
BY_NAME = {metric.name: metric for metric in CATALOGUE}
