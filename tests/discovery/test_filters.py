"""Which containers a source is about."""

import time

import msgspec
import pytest

from hostagent.discovery.containers.filters import Filter, Selector
from hostagent.discovery.runtime.container import Container, Pod
from tests.discovery.examples import container

NOTHING = Filter()


def takes(one: Container, include: Filter = NOTHING, exclude: Filter = NOTHING) -> bool:
    return Selector(include, exclude).why_not(one) is None


def in_pod(namespace: str = "shop", pod: str = "web-0", labels: dict[str, str] | None = None) -> Container:
    return container(pod=Pod(name=pod, namespace=namespace, uid="u", labels=labels or {}))


def test_without_filters_every_container_is_taken() -> None:
    assert takes(container())


def test_the_classic_three_sources_route_three_ways() -> None:
    sources = {
        "pre": Selector(Filter(env={"Env": "Pre"}), NOTHING),
        "app1": Selector(Filter(env={"APP": "APP1"}), NOTHING),
        "rest": Selector(NOTHING, Filter(env={"Env": "Pre"})),
    }
    containers = {
        "a": container(env={"Env": "Pre"}),
        "b": container(env={"Env": "Pre", "APP": "APP1"}),
        "c": container(env={"Env": "Prod", "APP": "APP1"}),
        "d": container(env={}),
    }
    routed = {
        name: {source for source, selector in sources.items() if selector.why_not(one) is None}
        for name, one in containers.items()
    }
    assert routed == {"a": {"pre"}, "b": {"pre", "app1"}, "c": {"app1", "rest"}, "d": {"rest"}}


def test_one_match_within_a_map_is_enough() -> None:
    include = Filter(env={"APP": "a", "TIER": "front"})
    assert takes(container(env={"TIER": "front"}), include)
    assert not takes(container(env={"TIER": "back", "APP": "b"}), include)


def test_every_map_must_match() -> None:
    include = Filter(env={"APP": "a"}, labels={"team": "shop"})
    assert takes(container(env={"APP": "a"}, labels={"team": "shop"}), include)
    assert not takes(container(env={"APP": "a"}), include)
    assert not takes(container(labels={"team": "shop"}), include)


def test_exclude_wins() -> None:
    one = container(env={"APP": "a"}, labels={"team": "shop"})
    assert not takes(one, Filter(env={"APP": "a"}), Filter(labels={"team": "shop"}))
    assert not takes(one, exclude=Filter(env={"APP": "b"}, labels={"team": "shop"}))


@pytest.mark.parametrize(
    "value, env, taken",
    [
        ("^a.c$", "abc", True),
        ("^a.c$", "xabc", False),
        ("^a.c$", "abc\n", False),
        ("^a|c$", "xc", True),
        ("^(?:pre|stage)$", "stage", True),
        (r"^a\$", "a$", True),
        (r"^a\\$", "a\\", True),
        ("a.c", "abc", False),
        ("a.c", "a.c", True),
        ("^abc", "abc", False),
        ("^abc", "^abc", True),
        ("", "anything", True),
        ("", "", True),
    ],
)
def test_values(value: str, env: str, *, taken: bool) -> None:
    assert takes(container(env={"APP": env}), Filter(env={"APP": value})) is taken


def test_an_empty_value_asks_for_the_key() -> None:
    assert not takes(container(), Filter(env={"APP": ""}))


def test_pod_labels_namespace_pod_and_container() -> None:
    one = in_pod(labels={"app": "web"})
    assert takes(one, Filter(k8s_labels={"app": "web"}, namespace=("shop",), pod=("^web-.*$",), container=("web",)))
    assert not takes(one, Filter(namespace=("kube-system",)))
    assert not takes(one, exclude=Filter(namespace=("kube-system", "^sh.*$")))
    assert not takes(container(), Filter(namespace=("^.*$",)))
    assert takes(container(), exclude=Filter(namespace=("",)))
    assert not takes(one, exclude=Filter(namespace=("",)))


def test_the_containers_own_labels_are_not_the_pods() -> None:
    assert not takes(container(labels={"app": "web"}), Filter(k8s_labels={"app": "web"}))
    assert not takes(container(labels={"io.kubernetes.pod.namespace": "shop"}), Filter(namespace=("shop",)))


def test_a_reason_is_given() -> None:
    assert Selector(Filter(env={"APP": "a"}), NOTHING).why_not(container()) == ("not included: no match in include.env")
    assert Selector(NOTHING, Filter(env={"Env": "Pre"})).why_not(container(env={"Env": "Pre"})) == (
        "excluded by env: Env=Pre"
    )


def test_a_broken_expression_is_found_when_the_filter_is_made() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"env: .* is no valid regular expression"):
        msgspec.convert({"env": {"A": "^($"}}, Filter)


def test_an_enormous_value_is_not_searched() -> None:
    selector = Selector(Filter(env={"APP": "^(a+)+$"}), NOTHING)
    began_s = time.thread_time()
    assert selector.why_not(container(env={"APP": "a" * 1_000_000 + "!"})) is not None
    assert time.thread_time() - began_s < 1.0
