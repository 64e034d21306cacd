"""Does what operators ask for in the data directory: sends dead letters and quarantined blocks once more.

The main thread looks for requests and gives each to its output's sender, which pulls one delivery at a time and goes on
with fresh blocks in between. What is not finished at a stop is begun anew at the next start, under the same ids.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hostagent.deliver.again import Again
from hostagent.deliver.lane import Lane
from hostagent.errors import StateError
from hostagent.hookspecs import Notice
from hostagent.state.dead_letters import DeadLetters
from hostagent.state.letters import DEAD_LETTERS_DIRECTORY, DeadLetter, again_id, read_entries, read_records
from hostagent.state.requests import Request, Result, drop_results, finish, pending
from hostagent.state.spool.reading import list_blocks, read_block
from hostagent.state.spool.spooled import directory_name

log = logging.getLogger(__name__)

_FAILURES_KEPT = 100


class Requests:
    """The requests of one data directory. `look` is the main thread's, the rest happens in the senders' threads."""

    def __init__(self, data_dir: Path, dead_letters: DeadLetters, lanes: Callable[[], Mapping[str, Lane]]) -> None:
        self._data_dir = data_dir
        self._dead_letters = dead_letters
        self._lanes = lanes
        self._taken: dict[Path, Lane] = {}
        self._results: dict[Path, Result] = {}  # those that could not be stored yet
        self._notices: list[Notice] = []
        drop_results(data_dir)

    def notices(self) -> list[Notice]:
        """What waits to be sent again, and why it can't be."""
        return list(self._notices)

    def look(self) -> None:
        """Hand out new requests, and those whose output has been built anew since."""
        notices = []
        try:
            found = pending(self._data_dir)
        except StateError as error:
            found = []
            notices.append(Notice("requests", str(error)))
        for path, request in found:
            if (result := self._results.pop(path, None)) is not None:
                self._store(path, result)
                continue
            if request is None:
                self._finish(path, 0, ["this is no request"])
                continue
            lane = self._lanes().get(request.output)
            if lane is None:
                self._finish(path, 0, [f"there is no output {request.output!r} in the configuration"])
                continue
            notices.append(Notice(f"output {request.output}", "records wait to be sent again", "see `hostagent audit`"))
            if self._taken.get(path) is not lane:
                self._taken[path] = lane
                lane.send_again(self._work(path, request, lane))
        self._taken = {path: lane for path, lane in self._taken.items() if path in {one.path for one in found}}
        self._notices = notices

    def _work(self, path: Path, request: Request, lane: Lane) -> Iterator[Again]:
        """In the sender's thread: what is to be sent; it asks for the next when the last is delivered or refused."""
        sent = 0
        failures: list[str] = []
        entries = (
            self._segment(Path(request.segment), failures)
            if request.segment
            else self._letters(request, lane, failures)
        )
        try:
            for again in entries:
                yield again
                sent += 1
        except (StateError, OSError) as error:
            failures.append(str(error))
        self._finish(path, sent, failures)

    def _segment(self, segment: Path, failures: list[str]) -> Iterator[Again]:
        for listed in list_blocks(segment, verify=True):
            if listed.damage:
                failures.append(f"bytes {listed.place.offset} to {listed.place.offset + listed.bytes}: {listed.damage}")
            else:
                yield Again(read_block(listed).delivery, ())

    def _letters(self, request: Request, lane: Lane, failures: list[str]) -> Iterator[Again]:
        directory = self._data_dir / DEAD_LETTERS_DIRECTORY / directory_name(request.output)
        wanted = set(request.letters)
        for letter in [letter for letter in read_entries(directory) if letter.id in wanted]:
            again = self._rebuilt(directory, letter, lane, failures)
            if again is not None:
                yield again
                self._dead_letters.forget(request.output, [letter.id])

    def _rebuilt(self, directory: Path, letter: DeadLetter, lane: Lane, failures: list[str]) -> Again | None:
        header = letter.header
        if header.content_type != lane.encoder.content_type:
            failures.append(
                f"entry {letter.id} is {header.content_type}, the output sends {lane.encoder.content_type} now"
            )
            return None
        try:
            records = read_records(directory, letter.id)
        except StateError as error:
            failures.append(str(error))
            return None
        return Again(lane.delivery_of(again_id(header), records, header.observed_ns), header.parts)

    def _finish(self, path: Path, sent: int, failures: list[str]) -> None:
        if failures:
            log.warning("request %s: sent %d again, %d could not be: %s", path.stem, sent, len(failures), failures[0])
        else:
            log.info("request %s: sent %d again", path.stem, sent)
        self._store(path, Result(sent=sent, failures=tuple(failures[:_FAILURES_KEPT])))

    def _store(self, path: Path, result: Result) -> None:
        try:
            finish(path, result)
        except OSError as error:
            log.warning("%s: its result can't be stored now: %s", path, error)
            self._results[path] = result
