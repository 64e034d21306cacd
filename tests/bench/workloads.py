"""The kinds of logs the bench reads: how such a file is made, how the agent is told to read it, what must arrive.

Content is made from a seed and looks like what applications write, since compressors and parsers live off that. What
must arrive is worked out from the file itself by the plainest code there is, not by the agent's.
"""

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson

POOL = 16_384  # distinct endings: more than any compressor at level 1 can look back on

ACCESS_PATTERN = (
    r"^(?P<ip>\S+) (?P<ident>\S+) (?P<user>\S+) \[(?P<time>[^\]]+)\] "
    r'"(?P<method>\S+) (?P<path>\S+) (?P<protocol>[^"]+)" (?P<status>\d+) (?P<bytes>\d+) '
    r'"(?P<referer>[^"]*)" "(?P<agent>[^"]*)"$'
)
STACK_START = r"^\d{4}-\d{2}-\d{2} "

_SERVICES = ("order", "payment", "cart", "inventory", "shipping", "catalog", "session", "pricing", "search", "invoice")
_LEVELS = ("INFO ", "INFO ", "INFO ", "INFO ", "DEBUG", "WARN ", "ERROR")
_VERBS = ("accepted", "placed", "reserved", "confirmed", "rejected", "retried", "scheduled", "released")
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/132.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:135.0) Gecko/20100101 Firefox/135.0",
    "curl/8.5.0",
)


_NOTES = (
    "retry later",
    "upstream timed out",
    "not in stock",
    "card declined",
    "already confirmed",
    "queued for review",
)
_COUNTERS = ("items", "elapsed_ms", "attempt", "shard", "queue_depth", "pool_active", "pool_idle")
_NAMES = ("component", "upstream", "topic", "consumer_group", "feature")


class Lane(msgspec.Struct, frozen=True):
    """One kind of log. `expected` gives the records of a file, `seen` the same view of a delivered record."""

    name: str
    what: str
    lines: Callable[[random.Random], Iterator[bytes]]
    source: dict[str, Any]
    expected: Callable[[Path], Iterator[bytes]]
    seen: Callable[[dict[str, Any]], bytes]


def write_file(lane: Lane, path: Path, size: int, seed: int = 1) -> int:
    """Make a file of about `size` bytes; how many it has."""
    written = 0
    pending: list[bytes] = []
    with path.open("wb") as target:
        for line in lane.lines(random.Random(seed)):
            pending.append(line)
            written += len(line)
            if len(pending) == 4096 or written >= size:
                target.write(b"".join(pending))
                pending.clear()
                if written >= size:
                    break
    return written


def _fields(rng: random.Random, length: int) -> str:
    """key=value text of exactly `length` characters, now and then with a quoted value and an id nobody can compress."""
    parts: list[str] = []
    size = 0
    while size < length:
        draw = rng.random()
        if draw < 0.06:
            part = f"trace={rng.getrandbits(64):016x}"
        elif draw < 0.3:
            part = f"path=/api/v{rng.randrange(1, 4)}/{rng.choice(_SERVICES)}s/{rng.randrange(500)}"
        elif draw < 0.45:
            part = f"host={rng.choice(_SERVICES)}-{rng.randrange(8):02}.prod.example.internal"
        elif draw < 0.6:
            part = f'{rng.choice(("cause", "note", "state"))}="{rng.choice(_NOTES)}"'
        elif draw < 0.8:
            part = f"{rng.choice(_COUNTERS)}={rng.randrange(100)}"
        else:
            part = f"{rng.choice(_NAMES)}={rng.choice(_SERVICES)}"
        parts.append(part)
        size += len(part) + 1
    return " ".join(parts)[:length]


def _pool(make: Callable[[], str]) -> list[bytes]:
    return [make().encode() for _ in range(POOL)]


def _clock(seq: int) -> tuple[int, int, int]:
    """Hours, minutes and seconds of a log that writes a thousand lines a second."""
    second = seq // 1000
    return second // 3600 % 24, second // 60 % 60, second % 60


def raw_lines(rng: random.Random) -> Iterator[bytes]:
    """Application log, 512 bytes a line."""

    def ending() -> str:
        service = rng.choice(_SERVICES)
        text = (
            f"{rng.choice(_LEVELS)} [http-nio-8080-exec-{rng.randrange(1, 33)}] com.example.shop.{service}."
            f"{service.capitalize()}Service - {service} {rng.choice(_VERBS)} "
        )
        return text + _fields(rng, 467 - len(text))

    endings = _pool(ending)
    seq = 0
    while True:
        hour, minute, second = _clock(seq)
        head = b"2026-03-14T%02d:%02d:%02d.%03dZ id=%015d " % (hour, minute, second, seq % 1000, seq)
        line = head + endings[rng.randrange(POOL)]
        yield line[:511].ljust(511, b"-") + b"\n"
        seq += 1


def stack_lines(rng: random.Random) -> Iterator[bytes]:
    """Java stack traces of six lines, 513 bytes a record."""

    def ending() -> str:
        service = rng.choice(_SERVICES)
        package = f"com.example.shop.{service}"
        name = service.capitalize()
        line = rng.randrange(800, 999)
        lines = [
            f"java.lang.IllegalStateException: {service} {rng.randrange(10**6)} is not in state OPEN",
            f"\tat {package}.{name}Repository.load({name}Repository.java:{rng.randrange(20, 400)})",
            f"\tat {package}.{name}Service.handle({name}Service.java:{rng.randrange(20, 400)})",
            f"\tat {package}.{name}Controller.post({name}Controller.java:{rng.randrange(20, 200)})",
            f"\tat org.springframework.web.servlet.FrameworkServlet.service(FrameworkServlet.java:{line})",
        ]
        return "\n".join(lines)

    endings = _pool(ending)
    fillers = _pool(lambda: _fields(rng, 200))
    seq = 0
    while True:
        hour, minute, second = _clock(seq)
        stack = endings[rng.randrange(POOL)]
        head = b"2026-03-14 %02d:%02d:%02d.%03d ERROR [worker-%02d] request %09d failed " % (
            *(hour, minute, second, seq % 1000),
            *(rng.randrange(64), seq),
        )
        filler = fillers[rng.randrange(POOL)][: 513 - len(head) - len(stack) - 2]
        yield head + filler + b"\n" + stack + b"\n"
        seq += 1


def access_lines(rng: random.Random) -> Iterator[bytes]:
    """Combined access log, eleven groups, 533 bytes a line."""

    def ending() -> str:
        item = f"{rng.choice(_SERVICES)}s/{rng.randrange(10**4)}"
        path = f"/api/v{rng.randrange(1, 4)}/{item}?session={rng.getrandbits(48):x}"
        tail = (
            f'{rng.choice(("GET", "GET", "GET", "POST", "PUT"))} {path}&q=%s HTTP/1.1" '
            f"{rng.choice((200, 200, 200, 204, 301, 404, 500))} {rng.randrange(10**5)} "
            f'"https://shop.example.com/{rng.choice(_SERVICES)}s/{rng.randrange(1000)}" "{rng.choice(_AGENTS)}"'
        )
        query = "+".join(rng.choice((*_NOTES, *_SERVICES, *_NAMES)).replace(" ", "+") for _ in range(40))
        return tail.replace("%s", query[: 476 - len(tail)])

    endings = _pool(ending)
    seq = 0
    while True:
        hour, minute, second = _clock(seq)
        head = b'10.%03d.%03d.%03d - user%06d [14/Mar/2026:%02d:%02d:%02d +0000] "' % (
            *(rng.randrange(100, 256), rng.randrange(100, 256), seq % 156 + 100),
            *(seq % 10**6, hour, minute, second),
        )
        yield head + endings[rng.randrange(POOL)] + b"\n"
        seq += 1


def _nanoseconds(rng: random.Random, seq: int) -> bytes:
    """A fraction as Go prints it: trailing zeros go, so that one stamp in ten is shorter."""
    return (
        b"%03d%06d" % (seq % 1000, rng.randrange(10**6))
        if rng.random() < 0.9
        else b"%03d%05d" % (*(seq % 1000, rng.randrange(10**4) * 10 + 7),)
    )


def cri_lines(rng: random.Random) -> Iterator[bytes]:
    """What containerd writes, about 216 bytes a line."""
    endings = _pool(lambda: _fields(rng, 162))
    seq = 0
    while True:
        hour, minute, second = _clock(seq)
        stream = b"stdout" if rng.random() < 0.95 else b"stderr"
        yield b"2026-03-14T%02d:%02d:%02d.%sZ %s F id=%09d %s\n" % (
            *(hour, minute, second, _nanoseconds(rng, seq), stream, seq),
            endings[rng.randrange(POOL)],
        )
        seq += 1


def docker_lines(rng: random.Random) -> Iterator[bytes]:
    """What Docker's json-file driver writes, about 280 bytes a line."""

    def ending() -> str:
        return orjson.dumps(_fields(rng, 180))[1:-1].decode()

    endings = _pool(ending)
    seq = 0
    while True:
        hour, minute, second = _clock(seq)
        stream = b"stdout" if rng.random() < 0.95 else b"stderr"
        yield b'{"log":"id=%09d %s\\n","stream":"%s","time":"2026-03-14T%02d:%02d:%02d.%sZ"}\n' % (
            *(seq, endings[rng.randrange(POOL)], stream),
            *(hour, minute, second, _nanoseconds(rng, seq)),
        )
        seq += 1


def expect_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:
        for line in lines:
            yield line.rstrip(b"\n")


def expect_stacks(path: Path) -> Iterator[bytes]:
    record: list[bytes] = []
    for line in expect_lines(path):
        if line.startswith(b"2026-") and record:
            yield b"\n".join(record)
            record.clear()
        record.append(line)
    yield b"\n".join(record)


def expect_access(path: Path) -> Iterator[bytes]:
    pattern = re.compile(ACCESS_PATTERN.encode())
    for line in expect_lines(path):
        if found := pattern.match(line):
            yield b"\x1f".join(found.groups())


def expect_cri(path: Path) -> Iterator[bytes]:
    for line in expect_lines(path):
        _, stream, _, text = line.split(b" ", 3)
        yield stream + b" " + text


def expect_docker(path: Path) -> Iterator[bytes]:
    for line in expect_lines(path):
        entry = orjson.loads(line)
        yield f"{entry['stream']} {entry['log'][:-1]}".encode()


def _seen_message(record: dict[str, Any]) -> bytes:
    message: str = record["message"]
    return message.encode()


def _seen_access(record: dict[str, Any]) -> bytes:
    return "\x1f".join(str(record[name]) for name in re.compile(ACCESS_PATTERN).groupindex).encode()


def _seen_container(record: dict[str, Any]) -> bytes:
    return f"{record['stream']} {record['message']}".encode()


LANES = {
    lane.name: lane
    for lane in (
        Lane("raw", "512 B lines", raw_lines, {"format": "raw"}, expect_lines, _seen_message),
        Lane(
            "multiline",
            "6-line Java stacks, 513 B",
            stack_lines,
            {"format": "raw", "multiline": {"start": STACK_START}},
            expect_stacks,
            _seen_message,
        ),
        Lane(
            "regex",
            "11 groups, 533 B access log",
            access_lines,
            {"format": "raw", "parse": {"type": "regex", "pattern": ACCESS_PATTERN}},
            expect_access,
            _seen_access,
        ),
        Lane("cri", "containerd lines, ~216 B", cri_lines, {"format": "cri"}, expect_cri, _seen_container),
        Lane(
            "docker-json",
            "json-file lines, ~280 B",
            docker_lines,
            {"format": "docker-json"},
            expect_docker,
            _seen_container,
        ),
    )
}
