"""A few components with typical options, so that loading is tested without the real stages."""

from typing import Annotated, Any, Literal

import msgspec

from hostagent.config.parts import BrokenPlugin, Parts
from hostagent.hookspecs import Component, Pattern


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    headers: dict[str, str] = {}
    bearer_token_file: str | None = None
    password: str = ""
    rotate_bytes: int = 1024
    mode: Literal["append", "truncate"] = "append"

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError("url: expected http:// or https://")


class RegexOptions(msgspec.Struct, frozen=True, kw_only=True):
    pattern: Pattern


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    field: str
    matches: Pattern | None = None
    any: "tuple[Condition, ...]" = ()


class DropOptions(msgspec.Struct, frozen=True, kw_only=True):
    condition: Condition = msgspec.field(name="if")


class NoOptions(msgspec.Struct, frozen=True):
    pass


def part(options: type[msgspec.Struct]) -> Component[Any]:
    return Component(options, lambda _options, _wiring: None)


PARTS = Parts(
    discoveries={"file": part(FileOptions), "containers": part(NoOptions)},
    framings={"raw": part(NoOptions), "cri": part(NoOptions), "docker-json": part(NoOptions)},
    parsers={"regex": part(RegexOptions), "json": part(NoOptions)},
    processors={"drop": part(DropOptions)},
    encoders={"ndjson": part(NoOptions)},
    outputs={"http": part(HttpOptions), "blackhole": part(NoOptions)},
    broken=(BrokenPlugin("kafka", "hostagent-kafka 1.0", "ImportError: no librdkafka"),),
)
