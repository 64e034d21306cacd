"""What containers say about their logs, and what is made of it."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.discovery.declarations.annotation import ANNOTATION
from hostagent.discovery.declarations.judge import (
    MOST_DECLARATIONS,
    MOST_PROBLEMS,
    Declaration,
    Declared,
    Rules,
    declarations_of,
)
from tests.discovery.examples import container

DEFAULT_RULES = Rules()


def declared(
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    logs: object = None,
    rules: Rules = DEFAULT_RULES,
) -> Declared:
    annotations = None if logs is None else {ANNOTATION: logs if isinstance(logs, str) else json.dumps(logs)}
    return declarations_of(container(env=env, labels=labels, annotations=annotations), rules)


def the_one(found: Declared) -> Declaration:
    assert [problem for problem in found.problems if not problem.warning] == []
    (one,) = found.declarations
    return one


# -- Log-Pilot and Logtail


def test_standard_output_by_a_variable() -> None:
    one = the_one(declared({"aliyun_logs_web": "stdout"}))
    assert (one.name, one.stdout, one.paths, one.target, one.parse) == ("web", True, (), "web", None)


def test_paths_by_a_label() -> None:
    one = the_one(declared(labels={"aliyun.logs.access": "/var/log/nginx/access*.log, /srv/app.log"}))
    assert one.paths == ("/var/log/nginx/access*.log", "/srv/app.log")
    assert not one.stdout


def test_standard_output_and_a_path_in_one_declaration() -> None:
    one = the_one(declared({"aliyun_logs_web": "stdout,/srv/app.log"}))
    assert (one.stdout, one.paths) == (True, ("/srv/app.log",))


def test_options_of_both_writings() -> None:
    env = {
        "aliyun_logs_web": "/srv/app.log",
        "aliyun_logs_web_format": "regexp",
        "aliyun_logs_web_format_pattern": r"/^(?<level>\S+) (?<text>.*)$/",
        "aliyun_logs_web_tags": "team=shop, tier=front",
        "aliyun_logs_web_target": "shop-logs",
    }
    labels = {key.replace("_", "."): value for key, value in env.items()}
    for one in (the_one(declared(env)), the_one(declared(labels=labels))):
        assert one.parse == {"type": "regex", "pattern": r"^(?P<level>\S+) (?P<text>.*)$"}
        assert one.tags == {"team": "shop", "tier": "front"}
        assert one.target == "shop-logs"


def test_a_variable_replaces_the_label_with_the_same_key() -> None:
    found = declared(
        {"aliyun_logs_web": "/new.log"},
        {"aliyun.logs.web": "/old.log", "aliyun.logs.web.tags": "a=label"},
    )
    one = the_one(found)
    assert (one.paths, one.tags) == (("/new.log",), {"a": "label"})


def test_an_underscore_in_the_name_stays_in_the_name_and_is_warned_about() -> None:
    found = declared({"aliyun_logs_my_app": "stdout", "aliyun_logs_my_app_tags": "a=b"})
    one = the_one(found)
    assert (one.name, one.tags) == ("my_app", {"a": "b"})
    (problem,) = found.problems
    assert problem.warning
    assert "Log-Pilot would refuse" in problem.message


def test_logtails_newer_prefix_and_its_logstore() -> None:
    one = the_one(declared({"loong_logs_web": "stdout", "loong_logs_web_logstore": "shop", "loong_logs_web_ttl": "3"}))
    assert (one.name, one.target) == ("web", "shop")


def test_a_word_only_logtail_knows_is_part_of_a_name_where_no_other_is_declared() -> None:
    one = the_one(declared({"aliyun_logs_big_project": "stdout"}))
    assert one.name == "big_project"


def test_prefixes_are_the_operators() -> None:
    rules = Rules(prefixes=("acme",))
    found = declared({"acme_logs_a": "stdout", "aliyun_logs_b": "stdout"}, {"acme.logs.c": "stdout"}, rules=rules)
    assert sorted(one.name for one in found.declarations) == ["a", "c"]


def test_the_first_prefix_wins_over_the_second() -> None:
    found = declared({"loong_logs_web": "/second.log", "aliyun_logs_web": "/first.log"})
    assert [one.paths for one in found.declarations] == [("/first.log",)]
    assert "names the same log" in found.problems[0].message


def test_a_list_of_paths() -> None:
    one = the_one(declared({"LOG_COLLECT_FILES": "/home/www/logs/ego.sys,/home/www/logs/*.log"}))
    assert (one.paths, one.target) == (("/home/www/logs/ego.sys", "/home/www/logs/*.log"), "")


@pytest.mark.parametrize(
    "options, parse",
    [
        ({"": "none"}, None),
        ({"": "json"}, {"type": "json"}),
        ({"": "json", "_time_key": "ts"}, {"type": "json", "time_key": "ts"}),
        ({"": "csv", "_keys": "a, b"}, {"type": "delimiter", "separator": ",", "keys": ["a", "b"]}),
    ],
)
def test_formats(options: Mapping[str, str], parse: object) -> None:
    env = {f"aliyun_logs_web_format{key}": value for key, value in options.items()}
    assert the_one(declared({"aliyun_logs_web": "stdout", **env})).parse == parse


@pytest.mark.parametrize(
    "env, message",
    [
        ({"_format": "protobuf"}, "'protobuf' is not known"),
        ({"_format": "json", "_format_colour": "red"}, "'colour' is not known"),
        ({"_format": "json", "_format_time_format": "%s"}, "`time_format` is ignored"),
        ({"_format": "nginx", "_format_time_key": "t"}, "`time_key` is ignored"),
        ({"_format": "regexp"}, "no pattern"),
        ({"_format": "regexp", "_format_pattern": "("}, "no valid regular expression"),
        ({"_format": "regexp", "_format_pattern": "(a+)+$"}, "ambiguous"),
        ({"_format": "csv"}, "names no columns"),
        ({"_tags": "broken,k8s_pod_namespace=kube-system"}, "write name=value|only the runtime"),
    ],
)
def test_what_cannot_be_had_is_reported_and_the_log_collected_all_the_same(
    env: Mapping[str, str], message: str
) -> None:
    found = declared({"aliyun_logs_web": "stdout", **{f"aliyun_logs_web{key}": value for key, value in env.items()}})
    assert [one.stdout for one in found.declarations] == [True]
    said = " ".join(f"{problem.message} {problem.hint}" for problem in found.problems)
    for part in message.split("|"):
        assert part in said


@pytest.mark.parametrize(
    "value",
    [
        "relative.log",
        "",
        ",,",
        "/",
        "/var/log/",
        "/var/../../etc/shadow",
        "/var/log/a\0b.log",
        "/var/log/a\nb.log",
        "/proc/1/environ",
        "/*/x.log",
        "/**/x.log",
        "/a/**/b/**/c.log",
        "/a/**b/c.log",
        "/a/*/*/*/*/*.log",
        "/" + "a" * 5000,
        "/a" * 500_000,
        "STDOUT",
    ],
)
def test_one_bad_declaration_is_reported_and_the_others_work(value: str) -> None:
    found = declared({"aliyun_logs_bad": value, "aliyun_logs_good": "/srv/app.log"})
    assert [one.name for one in found.declarations] == ["good"]
    (problem,) = found.problems
    assert problem.where == "env aliyun_logs_bad"
    assert not problem.warning
    assert len(problem.message) < 200


def test_one_bad_path_of_several_is_reported_and_the_others_work() -> None:
    found = declared({"LOG_COLLECT_FILES": "/a.log,b.log,/c.log"})
    assert found.declarations[0].paths == ("/a.log", "/c.log")
    assert "'b.log' is not absolute" in found.problems[0].message


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", "a\nb", "é", "a" * 101, "-a", "\0"])
def test_a_name_is_letters_and_digits(name: str) -> None:
    found = declared(labels={f"aliyun.logs.{name}": "stdout"})
    assert found.declarations == ()
    assert "\n" not in found.problems[0].where + found.problems[0].message


def test_an_option_without_its_log_is_reported() -> None:
    found = declared({"aliyun_logs_web_tags": "a=b"})
    assert found.declarations == ()
    assert "not declared" in found.problems[0].message


@pytest.mark.parametrize(
    "tag", ["k8s_pod_namespace", "k8s_new", "container_id", "docker_app", "image", "host", "path", "message", "target"]
)
def test_what_the_runtime_says_nobody_else_may(tag: str) -> None:
    found = declared({"aliyun_logs_web": "stdout", "aliyun_logs_web_tags": f"{tag}=forged,mine=yes"})
    assert found.declarations[0].tags == {"mine": "yes"}
    assert repr(tag) in found.problems[0].message


# -- the annotation


def test_the_annotation() -> None:
    text = r"""
    - name: web
      path: /srv/app.log
      multiline: '^\d{4}-'
      parse: {type: regex, pattern: '^(?P<level>\S+) (?P<text>.*)$'}
      tags: {team: shop, version: 1.10}
      target: shop-logs
    - {name: out, stdout: true, parse: json, multiline: {start: '^\S', negate: true, flush_after: 2s}}
    - {name: raw, path: [/a.log, /b/*.log], format: docker-json}
    """
    found = declared(logs=text)
    web, out, raw = found.declarations
    assert found.problems == ()
    assert web.paths == ("/srv/app.log",)
    assert web.multiline == {"start": r"^\d{4}-"}
    assert web.parse == {"type": "regex", "pattern": r"^(?P<level>\S+) (?P<text>.*)$"}
    assert web.tags == {"team": "shop", "version": "1.10"}
    assert web.target == "shop-logs"
    assert (out.stdout, out.parse) == (True, {"type": "json"})
    assert out.multiline == {"start": r"^\S", "negate": "true", "flush_after": "2s"}
    assert (raw.paths, raw.format) == (("/a.log", "/b/*.log"), "docker-json")


def test_an_entry_for_another_container_of_the_pod_is_not_ours() -> None:
    logs = [{"name": "a", "stdout": True, "container": "proxy"}, {"name": "b", "stdout": True, "container": "web"}]
    assert the_one(declared(logs=logs)).name == "b"


def test_the_annotation_counts_before_the_environment() -> None:
    found = declared({"aliyun_logs_web": "/old.log"}, logs=[{"name": "web", "path": "/new.log"}])
    assert [one.paths for one in found.declarations] == [("/new.log",)]
    assert "names the same log" in found.problems[0].message


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"name": "bad", "paths": "/a"}, "paths"),
        ({"path": "/a"}, "name"),
        ({"name": "bad", "path": 7}, "not absolute"),
        ({"name": "bad"}, "is empty"),
        ({"name": "bad", "path": {"a": "b"}}, "path"),
        ("bad", "object"),
        ({"name": "bad", "stdout": "perhaps"}, "bool"),
    ],
)
def test_one_bad_entry_is_reported_and_the_others_work(entry: object, message: str) -> None:
    found = declared(logs=[entry, {"name": "good", "path": "/srv/app.log"}])
    assert [one.name for one in found.declarations] == ["good"]
    assert message in found.problems[0].message


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"parse": {"type": "regex", "pattern": "(a+)+$"}}, "ambiguous"),
        ({"parse": {"type": "regex", "pattern": ["a"]}}, "no text"),
        ({"parse": {"type": "script"}}, "may not use 'script'"),
        ({"parse": {"pattern": "a"}}, "names no parser"),
        ({"multiline": {"start": "^(?=.*a)x"}}, "may not"),
        ({"multiline": {"max_bytes": "100GiB"}}, "multiline.max_bytes is ignored"),
        ({"outputs": ["secret"]}, "may not choose the outputs secret"),
        ({"stdout": True, "format": "raw"}, "`format` is ignored"),
    ],
)
def test_an_option_that_may_not_be_is_left_out(entry: Mapping[str, object], message: str) -> None:
    found = declared(logs=[{"name": "web", "path": "/srv/app.log", **entry}])
    one = found.declarations[0]
    assert (one.parse, one.multiline, one.outputs, one.format) == (None, None, None, None)
    assert message in found.problems[0].message


def test_outputs_among_those_the_operator_offers() -> None:
    rules = Rules(outputs=("audit", "main"))
    one = the_one(declared(logs=[{"name": "web", "stdout": True, "outputs": "audit"}], rules=rules))
    assert one.outputs == ("audit",)


def test_the_operator_may_trust_patterns() -> None:
    env = {
        "aliyun_logs_web": "stdout",
        "aliyun_logs_web_format": "regexp",
        "aliyun_logs_web_format_pattern": "^(.*) (.*)x$",
    }
    assert declared(env).declarations[0].parse is None
    assert the_one(declared(env, rules=Rules(any_pattern=True))).parse is not None


@pytest.mark.parametrize(
    "text",
    [
        "a: b",
        "just text",
        "- [",
        "- &a {name: x, stdout: true}\n- *a",
        "a: &a [x,x,x]\nb: &b [*a,*a,*a]",
        "- " + "[" * 50_000,
        "- " + "{a: " * 20_000,
        "x" * 2_000_000,
        "\x00",
        "%YAML 9.9\n---\n- a",
        "- !!python/object/apply:os.system ['true']",
        "---\n- a\n---\n- b",
        "\ud800",
    ],
)
def test_an_annotation_that_is_no_list_is_reported_and_the_environment_still_counts(text: str) -> None:
    found = declared({"aliyun_logs_web": "stdout"}, logs=text)
    assert [one.name for one in found.declarations] == ["web"]
    assert found.problems
    assert all(len(problem.message) < 300 for problem in found.problems)


# -- whatever they write

HOSTILE = st.text(max_size=40) | st.sampled_from(
    ["stdout", "/a.log", "/a/*.log,/b", "a=b,c", "json", "regexp", "(a+)+", "../..", "\0", "/etc/shadow", "a" * 20_000]
)
KEYS = st.builds(
    "aliyun_logs_{}{}".format,
    st.text(max_size=5) | st.sampled_from(["web", "my_app", "format", "_", "web_format"]),
    st.sampled_from(["", "_format", "_tags", "_target", "_format_pattern", "_format_", "_", "_logstore", "_ttl"]),
)


@given(
    st.dictionaries(KEYS | HOSTILE, HOSTILE),
    st.dictionaries(KEYS.map(lambda key: key.replace("_", ".")), HOSTILE),
    HOSTILE,
)
def test_anything_gives_declarations_within_the_limits(
    env: dict[str, str], labels: dict[str, str], annotation: str
) -> None:
    found = declared(env, labels, annotation)
    assert len(found.declarations) <= MOST_DECLARATIONS
    for one in found.declarations:
        assert one.stdout or one.paths
        assert one.name.isascii()
        assert "/" not in one.name
        for path in one.paths:
            assert path.startswith("/")
            assert ".." not in path.split("/")
            assert path.isprintable() or not any(ord(char) < 32 for char in path)
        assert not any(name.startswith(("k8s_", "container_", "docker_")) for name in one.tags)
    for problem in found.problems:
        assert f"{problem.where}{problem.message}{problem.hint}".isprintable()


def test_ten_thousand_declarations_are_cut_short() -> None:
    env = {f"aliyun_logs_a{number}": "stdout" for number in range(10_000)}
    found = declared(env)
    assert len(found.declarations) == MOST_DECLARATIONS
    assert len(found.problems) <= MOST_PROBLEMS + 1


def test_a_thousand_paths_are_cut_short() -> None:
    found = declared({"LOG_COLLECT_FILES": ",".join(f"/a{number}.log" for number in range(1000))})
    assert len(found.declarations[0].paths) == 64
    assert "more than 64 paths" in found.problems[0].message
