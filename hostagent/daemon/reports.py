"""What the running agent says of itself: the answers of the local API and the samples of `/metrics`.

Gathers what the stages know into the types of `observe.report` and the names of `observe.catalogue`. It is asked from
the API's thread; what belongs to the reader is asked of the reader, with a time-out, so that a wedged reader shows.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hostagent import __version__
from hostagent.clock import Clock
from hostagent.config.model import Config
from hostagent.daemon.output_samples import output_samples
from hostagent.daemon.source_samples import lag_samples, source_samples
from hostagent.deliver.lane import Lane
from hostagent.deliver.status import LaneStatus
from hostagent.errors import StateError
from hostagent.hookspecs import Explained, Notice
from hostagent.observe.api import Answer, Route, json_answer
from hostagent.observe.health import Health, render_health, render_readiness
from hostagent.observe.metrics import CONTENT_TYPE, Sample, process_samples, read_process, render
from hostagent.observe.report import (
    AgentReport,
    ExplainReport,
    FileReport,
    FilesReport,
    NoticeReport,
    OutputReport,
    PositionReport,
    SourceReport,
    ThingReport,
    ThingsReport,
)
from hostagent.state.checkpoint import Checkpoint, LossTotal
from hostagent.state.dead_letters import DeadLetters, DeadLetterStats
from hostagent.tail.feed import Counters, Feed
from hostagent.tail.files.registry import Registry
from hostagent.tail.finding.beneath import beneath
from hostagent.tail.finding.places import Places
from hostagent.tail.reader import Reader
from hostagent.tail.views import FileView, Overview, overview, view

ASK_S = 3.0
MOST_FILES = 1000
DEAF = Notice("reader", "does not answer", "see `health`; restart the agent")
ENDED = Notice(
    "reader", "has ended, the agent is stopping: files are not known any more", "wait; see `limits.stop_timeout`"
)


class Reports:
    """Answers for one running agent."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        config_path: Path,
        host: str,
        clock: Clock,
        health: Health,
        reader: Reader,
        registry: Registry,
        places: Places,
        feed: Feed,
        checkpoint: Checkpoint,
        dead_letters: DeadLetters,
        lanes: Callable[[], tuple[Lane, ...]],
        notices: Callable[[], list[Notice]],
        explain: Callable[[str], list[tuple[str, Explained]]],
    ) -> None:
        self._config = config
        self._lanes = lanes
        self._config_path = config_path
        self._host = host
        self._clock = clock
        self._health = health
        self._reader = reader
        self._registry = registry
        self._places = places
        self._feed = feed
        self._checkpoint = checkpoint
        self._dead_letters = dead_letters
        self._notices = notices
        self._explain_thing = explain
        self._started_s = clock.monotonic_s()

    def routes(self) -> Mapping[str, Route]:
        """Path → what answers it."""
        return {
            "/metrics": lambda _: Answer(self._metrics().encode(), CONTENT_TYPE),
            "/healthz": lambda _: _text(*render_health(self._health.report())),
            "/readyz": lambda _: _text(*render_readiness(self._health.report())),
            "/status": lambda _: json_answer(self.status()),
            "/files": lambda query: json_answer(self.files(query)),
            "/explain": self._explain_route,
        }

    def status(self) -> AgentReport:
        """All of `GET /status`."""
        now = self._overview()
        figures = read_process()
        return AgentReport(
            version=__version__,
            pid=os.getpid(),
            host=self._host,
            config=str(self._config_path),
            data_dir=str(self._config().data_dir),
            uptime_s=self._clock.monotonic_s() - self._started_s,
            health=self._health.report(),
            sources=tuple(self._source(name, now) for name in self._config().sources),
            outputs=tuple(self._output(lane.status(), now) for lane in self._lanes()),
            notices=tuple(_notice(notice) for notice in self._all_notices(now)),
            rss_bytes=figures.rss_bytes,
            cpu_s=figures.cpu_s,
            open_fds=figures.open_fds,
        )

    def files(self, query: Mapping[str, str]) -> FilesReport:
        """All of `GET /files?source=…&limit=…`."""
        wanted = [one for one in self._overview().files if query.get("source", one.source) == one.source]
        limit = int(query["limit"]) if query.get("limit", "").isdigit() else MOST_FILES
        shown = sorted(wanted, key=lambda one: one.path)[:limit]
        return FilesReport(files=tuple(_file(one) for one in shown), left_out=len(wanted) - len(shown))

    def explain(self, path: str) -> ExplainReport:
        """All of `GET /explain?path=…`: what is done with a path, step by step."""
        if "\0" in path:
            return ExplainReport(path=_shown(path), collected=False, steps=("no path has a NUL in it",))
        answer = self._reader.ask(lambda: self._explain(path), ASK_S)
        return answer or ExplainReport(path=_shown(path), collected=False, steps=("the reader does not answer",))

    def explain_name(self, name: str) -> ThingsReport:
        """All of `GET /explain?name=…`: what is collected from a container, and where each of its files stands."""
        found = self._explain_thing(name)
        files = self._overview().files if found else ()
        return ThingsReport(
            name=_shown(name),
            found=tuple(
                ThingReport(
                    subject=_shown(one.subject),
                    source=source,
                    collected=bool(one.targets),
                    steps=tuple(map(_shown, one.steps)),
                    files=tuple(_file(file) for file in files if file.target in one.targets),
                )
                for source, one in found
            ),
        )

    def _explain_route(self, query: Mapping[str, str]) -> Answer:
        return json_answer(self.explain_name(query["name"]) if "name" in query else self.explain(query.get("path", "")))

    def _explain(self, path: str) -> ExplainReport:
        """In the reader's thread."""
        steps = []
        tailed = self._registry.by_path.get(path) or self._registry.by_path.get(os.path.realpath(path))
        for place in self._places.by_id.values():
            target = place.origin.target
            if not path.startswith(target.root):
                continue
            inner = beneath(target.root, path)
            if place.selection.matches(inner):
                steps.append(f"source {target.source} includes it ({target.id}, declared in: {target.declaration})")
            elif any(glob.matches(inner) for glob in place.selection.globs):
                steps.append(f"source {target.source} includes it, but one of its exclude patterns rules it out")
        steps = steps or ["no include pattern of any source matches it"]
        steps += [f"{notice.message} ({notice.hint})" for notice in self._reader.notices() if notice.subject == path]
        if tailed is None:
            return ExplainReport(path=_shown(path), collected=False, steps=tuple(steps))
        from_file = _file(view(tailed))
        steps.append(f"it is file {tailed.row}, generation {tailed.generation}; {from_file.state}")
        return ExplainReport(
            path=_shown(path),
            collected=True,
            source=tailed.origin.target.source,
            steps=tuple(steps),
            file=from_file,
        )

    def _overview(self) -> Overview:
        found = self._reader.ask(lambda: overview(self._registry, self._places, self._reader), ASK_S)
        return found or Overview((), {}, 0, 0, 0, 0, (ENDED if self._health.stopping else DEAF,))

    def _all_notices(self, now: Overview) -> list[Notice]:
        return [*self._checkpoint.notices(), *self._notices(), *now.notices]

    def _source(self, name: str, now: Overview) -> SourceReport:
        source = self._config().sources[name]
        files = [one for one in now.files if one.source == name]
        counters = self._feed.counters.get(name, Counters())
        since = [one.behind_since_s for one in files if one.behind_since_s is not None]
        return SourceReport(
            name=name,
            type=source.type,
            outputs=source.outputs,
            targets=now.targets.get(name, 0),
            files=len(files),
            open_files=sum(one.is_open for one in files),
            behind_bytes=sum(max((one.behind(output) for output in one.positions), default=0) for one in files),
            lag_s=self._clock.monotonic_s() - min(since) if since else None,
            read_records=counters.records,
            read_bytes=counters.raw_bytes,
            invalid_utf8=counters.invalid_utf8,
            unparsed=counters.unparsed,
            dropped=counters.dropped,
            lost_bytes=sum(total.bytes for total in self._losses() if total.source == name),
        )

    def _losses(self) -> list[LossTotal]:
        try:
            return self._checkpoint.loss_totals()
        except StateError:
            return []

    def _output(self, lane: LaneStatus, now: Overview) -> OutputReport:
        config = self._config().outputs[lane.name]
        mine = [one for one in now.files if lane.name in one.positions]
        since = [one.behind_since_s for one in mine if one.behind_since_s is not None and one.behind(lane.name)]
        letters = self._letters(lane.name)
        wall_ns = self._clock.wall_ns()
        ages = [self._clock.monotonic_s() - one for one in since]
        if lane.spool.oldest_ns is not None:
            ages.append(max(0, wall_ns - lane.spool.oldest_ns) / 1e9)
        return OutputReport(
            name=lane.name,
            type=config.type,
            state=lane.state,
            state_age_s=(wall_ns - lane.since_ns) / 1e9,
            last_error=lane.last_error,
            last_error_age_s=None if lane.last_error_ns is None else (wall_ns - lane.last_error_ns) / 1e9,
            behind_bytes=sum(one.behind(lane.name) for one in mine),
            lag_s=max(ages, default=None),
            queued_blocks=lane.queued_blocks,
            unacked_blocks=lane.unacked_blocks,
            unsent_bytes=lane.unsent_bytes,
            spooled_blocks=lane.spool.blocks,
            spooled_bytes=lane.spool.disk_bytes,
            spool_max_bytes=config.spool.max_bytes,
            delivered_records=lane.counters.records,
            delivered_bytes=lane.counters.raw_bytes,
            retries=lane.counters.retries,
            dead_letters=lane.counters.dead_letters if letters is None else letters.records,
        )

    def _letters(self, output: str) -> DeadLetterStats | None:
        try:
            return self._dead_letters.stats(output)
        except StateError:  # the notices say why
            return None

    # -- metrics -------------------------------------------------------------------------------------------------

    def _metrics(self) -> str:
        now = self._overview()
        return render([*self._agent_samples(now), *self._source_samples(now), *self._output_samples()])

    def _agent_samples(self, now: Overview) -> Iterator[Sample]:
        health = self._health.report()
        yield Sample("hostagent_build_info", 1, (__version__, platform.python_version()))
        yield Sample("hostagent_healthy", health.healthy)
        yield Sample("hostagent_ready", health.ready)
        yield Sample("hostagent_notices", len(self._all_notices(now)))
        age_s = self._clock.monotonic_s() - self._reader.heartbeat_s
        yield Sample("hostagent_reader_heartbeat_age_seconds", age_s)
        yield Sample("hostagent_inflight_bytes", sum(lane.status().unsent_bytes for lane in self._lanes()))
        yield Sample("hostagent_files_known", len(now.files))
        yield Sample("hostagent_files_open", sum(one.is_open for one in now.files))
        yield Sample("hostagent_directories_watched", now.directories - now.polled)
        yield Sample("hostagent_directories_polled", now.polled)
        yield Sample("hostagent_watcher_overflows_total", now.overflows)
        yield Sample("hostagent_rescans_total", now.rescans)
        yield Sample("hostagent_checkpoint_healthy", self._checkpoint.healthy)
        yield Sample("hostagent_checkpoint_commits_total", self._checkpoint.commits)
        yield Sample("hostagent_checkpoint_commit_failures_total", self._checkpoint.commit_failures)
        yield from process_samples(read_process())

    def _source_samples(self, now: Overview) -> Iterator[Sample]:
        losses = self._losses()
        now_s = self._clock.monotonic_s()
        for name, source in self._config().sources.items():
            counters = self._feed.counters.get(name, Counters())
            files = [one for one in now.files if one.source == name]
            lost = [total for total in losses if total.source == name]
            yield from source_samples(name, counters, files, lost, now.targets.get(name, 0))
            for output in source.outputs:
                yield from lag_samples(name, output, files, now_s)

    def _output_samples(self) -> Iterator[Sample]:
        for lane in self._lanes():
            config = self._config().outputs[lane.name]
            yield from output_samples(lane.status(), self._letters(lane.name), config, self._clock.wall_ns())


def _text(status: int, text: str) -> Answer:
    return Answer(text.encode(), "text/plain; charset=utf-8", status)


def _notice(notice: Notice) -> NoticeReport:
    return NoticeReport(subject=_shown(notice.subject), message=_shown(notice.message), hint=_shown(notice.hint))


def _shown(text: str) -> str:
    """Text that may hold the odd bytes of a file name, as something any terminal and JSON can take."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _file(one: FileView) -> FileReport:
    return FileReport(
        path=_shown(one.path),
        source=one.source,
        state=one.state,
        size_bytes=one.size,
        positions=tuple(
            PositionReport(output=output, offset=offset, behind_bytes=one.behind(output))
            for output, offset in one.positions.items()
        ),
        target=one.target,
        storage=one.storage,
        device=one.identity.device,
        inode=one.identity.inode,
        generation=one.generation,
        tags=one.tags,
    )
