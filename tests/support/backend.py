"""The test's side of the receiver: starts it, gives it orders, reads what it stored."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.support.arrivals import REPEATED, VIOLATION, Arrival, JournalReader

CHECKOUT = Path(__file__).resolve().parents[2]


class Backend:
    """A running receiver, its journal in `directory`. A context manager: leaving it ends the process."""

    def __init__(self, directory: Path, *, honour_keys: bool = True, seed: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.journal = directory / "arrivals.journal"
        keys = "honour" if honour_keys else "ignore"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.receiver", str(self.journal), keys, str(seed)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self.port: int = ports["port"]
        self._orders: int = ports["orders"]
        self._reader = JournalReader(self.journal)

    @property
    def pid(self) -> int:
        return self._process.pid

    def url(self, path: str = "/ingest") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def behave(self, kind: str = "healthy", **options: Any) -> None:  # noqa: ANN401 - the fields of Behaviour
        """From now on; see receiver.Behaviour."""
        self._order("PUT", "/behaviour", json.dumps({"kind": kind, **options}))

    def stats(self) -> dict[str, int]:
        """Requests seen, stored, repeated, violations, refused, bytes, time of the last store."""
        return self._order("GET", "/stats")

    def new_arrivals(self) -> Iterator[Arrival]:
        """What was stored since the last call; a known key's repetition carries nothing and is left out."""
        for arrival in self._reader.new():
            if arrival.entry.outcome == VIOLATION:
                raise AssertionError(f"the key {arrival.entry.key} came again with other bytes")
            if arrival.entry.outcome != REPEATED:
                yield arrival

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.stop()

    def _order(self, method: str, path: str, body: str = "") -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self._orders, timeout=30)
        try:
            connection.request(method, path, body.encode())
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"the receiver refused the order: {content.decode()}")
        counts: dict[str, int] = json.loads(content)
        return counts
