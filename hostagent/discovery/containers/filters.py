"""Which containers a source is about: include and exclude by environment, labels, namespace, pod and container name.

The rules are Logtail's: one match within a map is enough, every map that is given must match, a value `^…$` is a
regular expression, an empty value asks only whether the key is there, and exclude wins. It judges, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from hostagent.discovery.runtime.container import Container

# Values are a tenant's, patterns the operator's, who hardly thought of texts longer than this.
LONGEST_MATCHED = 4096

Test = Callable[[str], bool]


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a container must look like. `env`, `labels` and `k8s_labels` map keys to values, the others list names."""

    env: dict[str, str] = {}
    labels: dict[str, str] = {}
    k8s_labels: dict[str, str] = {}
    namespace: tuple[str, ...] = ()
    pod: tuple[str, ...] = ()
    container: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            value = getattr(self, field)
            for text in value.values() if isinstance(value, dict) else value:
                try:
                    _test(text)
                except re.error as error:
                    raise ValueError(f"{field}: {text!r} is no valid regular expression: {error}") from error


class Selector:
    """A source's include and exclude filters, compiled."""

    def __init__(self, include: Filter, exclude: Filter) -> None:
        self._include = _compiled(include)
        self._exclude = _compiled(exclude)

    def why_not(self, container: Container) -> str | None:
        """None for a container of this source, else the reason in words."""
        facts = _facts(container)
        for field, test in self._exclude.items():
            if found := test(facts[field]):
                return f"excluded by {field}: {found}"
        for field, test in self._include.items():
            if not test(facts[field]):
                return f"not included: no match in include.{field}"
        return None


# From a container's values in one field to the entry that matched, empty if none did.
_FieldTest = Callable[[Mapping[str, str]], str]


def _compiled(chosen: Filter) -> dict[str, _FieldTest]:
    tests: dict[str, _FieldTest] = {}
    for field in chosen.__struct_fields__:
        value = getattr(chosen, field)
        if isinstance(value, dict) and value:
            tests[field] = _map_test({key: _test(text) for key, text in value.items()}, value)
        elif value:
            tests[field] = _name_test(value)
    return tests


def _map_test(tests: Mapping[str, Test], texts: Mapping[str, str]) -> _FieldTest:
    def test(values: Mapping[str, str]) -> str:
        for key, one in tests.items():
            if key in values and one(values[key]):
                return f"{key}={texts[key]}" if texts[key] else key
        return ""

    return test


def _name_test(texts: Sequence[str]) -> _FieldTest:
    tests = [(text, _test(text)) for text in texts]

    def test(values: Mapping[str, str]) -> str:
        return next((text or "any" for text, one in tests if "" in values and one(values[""])), "")

    return test


def _test(text: str) -> Test:
    if not text:
        return lambda _: True
    if not (text.startswith("^") and text.endswith("$")):
        return lambda value: value == text
    # Python's `$` also matches before a last line end, which a value may well have.
    escaped = (len(text) - len(text[:-1].rstrip("\\")) - 1) % 2
    search = re.compile(text if escaped else text[:-1] + r"\Z").search
    return lambda value: len(value) <= LONGEST_MATCHED and search(value) is not None


def _facts(container: Container) -> dict[str, Mapping[str, str]]:
    pod = container.pod
    return {
        "env": container.env,
        "labels": container.labels,
        "k8s_labels": pod.labels if pod else {},
        "namespace": {"": pod.namespace} if pod else {},
        "pod": {"": pod.name} if pod else {},
        "container": {"": container.name},
    }
