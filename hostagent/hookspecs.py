"""The whole plugin API on one page: what a part must look like, and the hooks that announce parts.

A plugin package names a module in the entry-point group `hostagent`; its `hostagent_register_*` functions return
name → Component. The built-ins register the same way (`plugins.py`). Hooks run while things are wired, never per line.
A plugin imports only this module, `hostagent.model` and `hostagent.errors`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec
import pluggy

from hostagent.model import Batch, Delivery, Encoded, Scalar, Target, TargetChange, Verdict

if TYPE_CHECKING:
    from hostagent.clock import Clock

PROJECT = "hostagent"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Built_co = TypeVar("Built_co", covariant=True)

# An option of this type is a regular expression; `check` compiles it and points at the character that is wrong. Further
# meaning comes from an option's name: `timeout_s` is a duration (`timeout: 5s` in YAML), `max_bytes` a size (`1MiB`),
# `password_file` a file that must be readable. A `ValueError("name: …")` from `__post_init__` is shown at that option.
Pattern = Annotated[str, msgspec.Meta(extra_json_schema={"format": "regex"})]


class Wiring(NamedTuple):
    """What a part may use while it is built: its name in the configuration, the clock, a directory of its own."""

    name: str
    clock: Clock
    data_dir: Path


class Component(msgspec.Struct, Generic[Built_co], frozen=True):
    """A named part: the msgspec Struct its options are validated with, and the function that builds it from them."""

    options: type[msgspec.Struct]
    build: Callable[[Any, Wiring], Built_co]


class Notice(NamedTuple):
    """Something an operator should know, shown by `status`: what it concerns, what is the matter, what to do."""

    subject: str
    message: str
    hint: str = ""


class Discovery(Protocol):
    """Finds targets. Runs in a thread of its own, which may end early when there is nothing more to find."""

    def run(self, publish: Callable[[TargetChange], None], stop: threading.Event) -> None:
        """Publish target changes until `stop` is set."""

    def notices(self) -> list[Notice]:
        """What is not collected right now, and why; called from another thread."""


class Explained(NamedTuple):
    """What a discovery makes of a thing it knows by a name: the steps to its decision, and the ids of its targets."""

    subject: str
    steps: tuple[str, ...]
    targets: tuple[str, ...] = ()


@runtime_checkable
class Explains(Protocol):
    """A discovery whose targets belong to things with names, such as containers."""

    def explain(self, name: str) -> list[Explained]:
        """Everything that goes by this name; called from another thread."""


class Content(Protocol):
    """The bytes of one open file, whatever they are stored as. `fd` is its descriptor, owned until `close`.

    Where stored bytes can end too soon, a `complete` that is False once all was read says that these do.
    """

    fd: int

    def read(self, offset: int, size: int) -> bytes:
        """Bytes [offset, offset+size), fewer at the end of the file."""

    def close(self) -> None:
        """Give the descriptor back."""


class Tailer(Protocol):
    """Reads one kind of file storage (plain, gzip, …)."""

    def recognises(self, name: str, head: bytes) -> bool:
        """Whether a file with this base name and these first bytes is of this kind."""

    def open(self, fd: int) -> Content:
        """Take over a descriptor open for reading; offsets are those of the decoded bytes."""


class Framed(NamedTuple):
    """Records cut out of bytes.

    `starts[i]` is where reading must begin again to get record i and all after it, None where record i is simply line
    i. Records that lie across each other in the file can't be had apart: they share one start.
    """

    batches: list[Batch]
    consumed: int
    starts: list[int] | None = None


class Framing(Protocol):
    """Knows where a record begins and ends in a file, and what the runtime wrote around its text."""

    def frame(self, data: bytes, constants: Mapping[str, Scalar], *, final: bool, limit_bytes: int) -> Framed:
        """Cut whole records; with `final` also what has not ended. `data` starts at a record's first byte.

        A record that reaches `limit_bytes` without an end is cut there and marked `partial: true`, judged by its own
        bytes alone: the same bytes are cut again after a crash.
        """


class Parser(Protocol):
    """Makes fields out of each record's `message`; records it can't parse pass unchanged."""

    def parse(self, batch: Batch) -> tuple[list[Batch], int]:
        """Return batches in order and the number of records that did not parse."""


class Processor(Protocol):
    """Changes, drops or adds to records. Must give the same result for the same batch, whenever it is asked."""

    def process(self, batch: Batch) -> list[Batch]:
        """Return the batches that take this one's place, in order; an empty list drops all of it."""


class Encoder(Protocol):
    """Turns batches into an output's wire form. The same batch and time always give the same bytes.

    Payloads may be laid end to end; `join` makes the body of a request from such a run. `timed` says whether `encode`
    looks at `observed_ns`: if not, outputs with equal encoders share one payload.
    """

    content_type: str
    timed: bool

    def encode(self, batch: Batch, observed_ns: int) -> Encoded:
        """Encode one batch."""

    def join(self, payloads: list[bytes]) -> bytes:
        """One body from payloads, each of one or more batches."""

    def split(self, body: bytes) -> list[bytes]:
        """The records of a body, each a payload that `join` takes again."""


class Output(Protocol):
    """Talks to one backend. Used by one sender thread; may block, must honour its own time-outs."""

    def send(self, delivery: Delivery) -> Verdict:
        """Deliver one body; raise TemporaryError to have it retried, PermanentError to have it dead-lettered."""

    def close(self) -> None:
        """Release connections and files; called once, from the sender's thread."""


class Specs:
    """The hooks. Each `register` hook returns name → Component; a name that is taken is a start-up error."""

    @hookspec
    def hostagent_register_discoveries(self) -> Mapping[str, Component[Discovery]]:  # type: ignore[empty-body]
        """Source types: what a source's `type` may say."""

    @hookspec
    def hostagent_register_tailers(self) -> Mapping[str, Component[Tailer]]:  # type: ignore[empty-body]
        """Kinds of file storage that can be read and resumed."""

    @hookspec
    def hostagent_register_framings(self) -> Mapping[str, Component[Framing]]:  # type: ignore[empty-body]
        """Framings: what a source's `format` may say."""

    @hookspec
    def hostagent_register_parsers(self) -> Mapping[str, Component[Parser]]:  # type: ignore[empty-body]
        """Parsers: what `parse.type` may say."""

    @hookspec
    def hostagent_register_processors(self) -> Mapping[str, Component[Processor]]:  # type: ignore[empty-body]
        """Processors: what an entry of `processors` may have as its `type`."""

    @hookspec
    def hostagent_register_encoders(self) -> Mapping[str, Component[Encoder]]:  # type: ignore[empty-body]
        """Encoders: what an output's `encoding` may say."""

    @hookspec
    def hostagent_register_outputs(self) -> Mapping[str, Component[Output]]:  # type: ignore[empty-body]
        """Outputs: what an output's `type` may say."""

    @hookspec
    def hostagent_register_commands(self, group: Any) -> None:  # noqa: ANN401 - click stays off this page
        """Add commands to the command line; `group` is the click group."""

    @hookspec
    def hostagent_describe_target(self, target: Target) -> Mapping[str, Scalar] | None:
        """Tags to add to a target when it is first seen; a name the target already has is not overridden."""
