"""The source type `containers`: which targets it publishes as containers come, change and go."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostagent.clock import Clock
from hostagent.config.load import load_config
from hostagent.discovery.containers.left_logs import LeftLogs
from hostagent.discovery.containers.options import ContainersOptions
from hostagent.discovery.containers.source import ContainersDiscovery
from hostagent.discovery.containers.targets import ContainerTargets
from hostagent.discovery.runtime.container import Container, ContainerChange, ContainerState, Mount, Pod
from hostagent.errors import ConfigError
from hostagent.hookspecs import Notice
from hostagent.model import Target, TargetChange
from hostagent.plugins import build_plugin_manager, collect_parts
from tests.discovery.examples import container
from tests.discovery.tenant import Tenant
from tests.support.waiting import wait_for


class Script:
    """A runtime that publishes what the test hands it."""

    def __init__(self) -> None:
        self._changes: queue.SimpleQueue[ContainerChange | None] = queue.SimpleQueue()

    def say(self, kind: str, one: Container | None = None) -> None:
        self._changes.put(ContainerChange(kind, one))

    def run(self, publish: Callable[[ContainerChange], None], stop: threading.Event) -> None:
        while (change := self._changes.get()) is not None:
            publish(change)

    def end(self) -> None:
        self._changes.put(None)

    def knows_pods(self) -> bool:
        return True

    def notices(self) -> list[Notice]:
        return [Notice("script", "is only a script")]


class Source:
    """A running source and what it has published."""

    def __init__(self, options: ContainersOptions, runtimes: int = 1) -> None:
        self.scripts = [Script() for _ in range(runtimes)]
        self.changes: list[TargetChange] = []
        self.discovery = ContainersDiscovery(
            self.scripts,
            ContainerTargets("s", options),
            Clock(),
            options.refresh_interval_s,
            left_logs=LeftLogs(options.host_root, options.pod_logs, Clock().wall_ns()),
        )

    def say(self, kind: str, one: Container | None = None) -> None:
        self.scripts[0].say(kind, one)

    def published(self, number: int) -> list[TargetChange]:
        """All changes, once there are so many."""
        wait_for(lambda: len(self.changes) >= number, f"{number} changes", so_far=lambda: str(self.changes))
        return self.changes

    def targets(self) -> dict[str, Target]:
        """What is published now, by id."""
        now: dict[str, Target] = {}
        for change in self.changes:
            if change.target is None:
                continue
            if change.kind == "removed":
                del now[change.target.id]
            else:
                assert (change.target.id in now) == (change.kind == "changed")
                now[change.target.id] = change.target
        return now


@contextmanager
def running(runtimes: int = 1, **options: Any) -> Iterator[Source]:  # noqa: ANN401
    source = Source(ContainersOptions(**options), runtimes)
    stop = threading.Event()
    thread = threading.Thread(target=source.discovery.run, args=(source.changes.append, stop))
    thread.start()
    try:
        yield source
    finally:
        stop.set()
        for script in source.scripts:
            script.end()
        thread.join()


@pytest.fixture
def tenant(tmp_path: Path) -> Tenant:
    return Tenant(tmp_path)


def test_a_container_s_output_with_its_tags_and_the_runtime_s_format() -> None:
    pod = Pod(name="web-0", namespace="shop", uid="u-1")
    with running(node_name="node-7") as source:
        source.say("added", container(pod=pod, log_path="/var/log/pods/x/web/0.log", log_format="cri"))
        (change,) = source.published(1)
    target = change.target
    assert target is not None
    assert (change.kind, target.source, target.root, target.format) == ("added", "s", "/", "cri")
    assert target.paths[0] == "/var/log/pods/x/web/0.log"
    assert target.declaration == "shop/web-0/web: standard output"
    wanted = {"k8s_pod": "web-0", "k8s_pod_namespace": "shop", "k8s_node_name": "node-7", "k8s_container_name": "web"}
    assert wanted.items() <= target.tags.items()


def test_a_declaration_for_the_output_gives_it_its_format_tags_and_target() -> None:
    env = {"aliyun_logs_web": "stdout", "aliyun_logs_web_format": "json", "aliyun_logs_web_tags": "team=shop"}
    with running() as source:
        source.say("added", container(env=env))
        (change,) = source.published(1)
    target = change.target
    assert target is not None
    assert target.parse == {"type": "json"}
    assert target.format == "docker-json"
    assert {"team": "shop", "target": "web"}.items() <= target.tags.items()


def test_the_output_is_one_target_however_often_it_is_declared() -> None:
    with running() as source:
        source.say("added", container(env={"aliyun_logs_a": "stdout", "aliyun_logs_b": "stdout"}))
        (change,) = source.published(1)
        assert change.target is not None
        assert change.target.tags["target"] == "a"
        assert "is collected as 'a' already" in source.discovery.notices()[1].message


@pytest.mark.parametrize("stdout, expected", [("all", {"plain", "asked"}), ("declared", {"asked"}), ("none", set())])
def test_whose_output_is_collected_is_the_operators_choice(stdout: str, expected: set[str]) -> None:
    with running(stdout=stdout) as source:
        source.say("added", container(id="1", name="plain"))
        source.say("added", container(id="2", name="asked", env={"aliyun_logs_a": "stdout"}))
        source.say("listed")
        wait_for(lambda: "listed" in [change.kind for change in source.changes], "the end of the list")
        names = {change.target.tags["container_name"] for change in source.changes if change.target}
    assert names == expected


def test_files_by_declaration_and_by_the_operator(tenant: Tenant) -> None:
    with running(paths=("/var/log/app.log",), stdout="none") as source:
        source.say("added", tenant.container({"LOG_COLLECT_FILES": "/data/*.log,/var/log/own.log"}))
        source.published(3)
        found = sorted((target.root, target.paths, target.shown_root) for target in source.targets().values())
    assert found == sorted(
        [
            (str(tenant.volume), ("/*.log",), "/data"),
            (str(tenant.root), ("/var/log/own.log",), "/"),
            (str(tenant.root), ("/var/log/app.log",), "/"),
        ]
    )


def test_declarations_can_be_switched_off() -> None:
    with running(declarations=False) as source:
        source.say("added", container(env={"aliyun_logs_a": "/a.log", "aliyun_logs_a_tags": "broken"}))
        source.say("listed")
        source.published(2)
        assert [change.kind for change in source.changes] == ["added", "listed"]
        assert source.discovery.notices() == [Notice("script", "is only a script")]


def test_a_container_that_is_gone_has_its_targets_removed(tenant: Tenant) -> None:
    one = tenant.container({"LOG_COLLECT_FILES": "/data/*.log,/var/log/own.log"})
    with running() as source:
        source.say("added", one)
        source.say("removed", one)
        kinds = [change.kind for change in source.published(6)]
        # Named once more before they go, its files are looked for once more.
        assert kinds == ["added", "added", "changed", "changed", "removed", "removed"]
        assert source.targets() == {}
        assert source.discovery.explain(one.id) == []


def test_what_a_short_lived_container_left_in_a_mount_is_found_when_it_is_gone(tenant: Tenant) -> None:
    late = tenant.host / "volumes/late"
    tenant.mounts.append(Mount("/late", str(late)))
    one = tenant.container({"LOG_COLLECT_FILES": "/late/*.log"}, state=ContainerState.CREATED)
    with running() as source:
        source.say("added", one)
        source.say("listed")
        source.published(1)
        late.mkdir()
        source.say("removed", one)
        _, added, removed = source.published(3)
    assert (added.kind, removed.kind, added.target) == ("added", "removed", removed.target)
    assert added.target is not None
    assert added.target.root == str(late)


def test_a_container_that_ended_keeps_its_targets(tenant: Tenant) -> None:
    one = tenant.container({"LOG_COLLECT_FILES": "/app/*.log"})
    (tenant.root / "app").symlink_to("/data/logs")
    with running() as source:
        source.say("added", one)
        (added,) = source.published(1)
        # Its upper directory may be all that is left, and the link in another layer.
        (tenant.root / "app").unlink()
        source.say("changed", msgspec.structs.replace(one, state=ContainerState.EXITED))
        source.say("listed")
        assert [change.kind for change in source.published(2)] == ["added", "listed"]
        assert added.target is not None
        assert added.target.root == str(tenant.volume)


def test_a_mount_that_several_containers_have_is_one_target_of_one_that_runs(tenant: Tenant) -> None:
    def attempt(number: int, state: ContainerState = ContainerState.RUNNING) -> Container:
        return tenant.container({"LOG_COLLECT_FILES": "/data/*.log"}, id=f"c{number}", state=state)

    with running() as source:
        source.say("added", attempt(0))
        source.say("changed", attempt(0, ContainerState.EXITED))
        source.say("added", attempt(1))
        source.say("added", attempt(2))
        source.say("removed", attempt(0))
        source.say("removed", attempt(1))
        source.say("listed")
        source.published(3)
        wait_for(lambda: source.changes[-1].kind == "listed", "the end")
        kinds = [(one.kind, one.target.tags["container_id"]) for one in source.changes if one.target is not None]
        # Named again, without a change, when a container goes: its files are looked for once more.
        assert kinds == [
            ("added", "c0"),
            ("changed", "c1"),
            ("changed", "c1"),
            ("changed", "c1"),
            ("changed", "c2"),
        ]
        assert len(source.targets()) == 1
        source.say("removed", attempt(2))
        wait_for(lambda: source.changes[-1].kind == "removed", "the last one to go")
        assert source.targets() == {}


def test_a_renamed_container_has_its_targets_changed() -> None:
    with running() as source:
        source.say("added", container(name="old"))
        source.say("changed", container(name="new"))
        _, change = source.published(2)
    assert change.kind == "changed"
    assert change.target is not None
    assert change.target.tags["container_name"] == "new"


def test_a_change_that_concerns_no_log_is_not_published() -> None:
    with running() as source:
        source.say("added", container())
        source.say("changed", container(state=ContainerState.PAUSED, restarts=3))
        source.say("listed")
        assert [change.kind for change in source.published(2)] == ["added", "listed"]


def test_a_link_that_appears_later_is_followed(tenant: Tenant) -> None:
    (tenant.volume / "logs").mkdir()
    with running(refresh_interval_s=0.05) as source:
        source.say("added", tenant.container({"LOG_COLLECT_FILES": "/srv/current/*.log"}))
        source.published(1)
        (tenant.root / "srv").mkdir()
        (tenant.root / "srv/current").symlink_to("/data/logs")
        source.published(3)
        (target,) = source.targets().values()
    assert (target.root, target.paths) == (str(tenant.volume), ("/logs/*.log",))


def test_everything_is_listed_when_every_runtime_has_listed() -> None:
    with running(runtimes=2) as source:
        source.scripts[0].say("listed")
        source.scripts[0].say("added", container(id="1"))
        source.scripts[1].say("added", container(id="2"))
        source.published(2)
        assert {change.kind for change in source.changes} == {"added"}
        source.scripts[1].say("listed")
        assert source.published(3)[2] == TargetChange("listed")


def test_why_a_container_is_not_collected_is_explained() -> None:
    options = msgspec.convert({"exclude": {"env": {"Env": "Pre"}}}, ContainersOptions)
    with running(exclude=options.exclude) as source:
        source.say("added", container(id="abc1", name="pre", env={"Env": "Pre"}))
        source.say("added", container(id="abd2", name="web", pod=Pod(name="web-0", namespace="shop", uid="u")))
        source.say("listed")
        source.published(2)
        (pre,) = source.discovery.explain("abc")
        assert (pre.subject, pre.targets) == ("container pre", ())
        assert pre.steps[1] == "excluded by env: Env=Pre"
        for name in ("abd", "web", "web-0", "shop/web-0", "shop/web-0/web"):
            (web,) = source.discovery.explain(name)
            assert web.subject == "container shop/web-0/web"
            assert len(web.targets) == 1
            assert web.steps[1].startswith("standard output: /var/lib/docker/containers/")
        assert len(source.discovery.explain("ab")) == 2
        assert source.discovery.explain("") == []


def test_what_keeps_an_output_from_being_collected_is_said() -> None:
    notice = Notice("container web", "log driver `none` keeps no output", "use json-file")
    with running() as source:
        source.say("added", container(log_path="", log_notice=notice))
        source.say("listed")
        assert [change.kind for change in source.published(1)] == ["listed"]
        assert notice in source.discovery.notices()


def test_thousands_of_bad_declarations_do_not_flood_the_status() -> None:
    with running() as source:
        for number in range(500):
            source.say("added", container(id=str(number), env={"aliyun_logs_a": "bad"}))
        source.published(500)
        wait_for(lambda: "further" in source.discovery.notices()[-1].message, "the list to be cut")
        assert len(source.discovery.notices()) == 201


def test_a_log_path_is_a_path_and_no_pattern(tenant: Tenant) -> None:
    with running(host_root=str(tenant.host)) as source:
        source.say("added", container(log_path="/var/log/a[b]*/0.log"))
        (change,) = source.published(1)
    assert change.target is not None
    assert change.target.root == str(tenant.host)
    assert change.target.paths[0] == "/var/log/a[[]b]*/0.log".replace("]*", "][*]")


# -- the configuration file

CONFIG = """
data_dir: {directory}
sources:
  web:
    type: containers
    {options}
outputs:
  out: {{type: blackhole}}
"""


def check(directory: Path, options: str) -> ContainersOptions:
    path = directory / "hostagent.yaml"
    path.write_text(CONFIG.format(directory=directory, options=options.replace("\n", "\n    ")))
    config = load_config(path, collect_parts(build_plugin_manager()))
    options_of = config.sources["web"].options
    assert isinstance(options_of, ContainersOptions)
    return options_of


def test_options_as_they_are_written(tmp_path: Path) -> None:
    options = check(
        tmp_path,
        """runtimes: "docker:///run/docker.sock"
host_root: /host
stdout: declared
paths: [/srv/*.log]
prefixes: [acme]
include: {env: {APP: APP1}, namespace: "^shop-.*$"}
exclude: {k8s_labels: {debug: ""}}
tags_from: {env: {APP: app}}
refresh_interval: 500ms""",
    )
    assert options.runtimes == ("docker:///run/docker.sock",)
    assert options.include.env == {"APP": "APP1"}
    assert options.include.namespace == ("^shop-.*$",)
    assert options.exclude.k8s_labels == {"debug": ""}
    assert options.tags_from.env == {"APP": "app"}
    assert options.refresh_interval_s == 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        ("include: {env: {APP: '^($'}}", "no valid regular expression"),
        ("include: {nmespace: a}", "namespace"),
        ("paths: [relative.log]", "is not absolute"),
        ("paths: ['/**/x.log']", "begins with a pattern"),
        ("runtimes: [unix:///run/docker.sock]", "docker:///path/to/socket"),
        (f"runtimes: [docker:///{'d' * 107}]", "can have 107 bytes, '/ddd"),
        (f"runtimes: [cri:///{'d' * 107}]", "has 108"),
        (
            "runtimes: [cri:///run/c.sock, docker:///run/d.sock, cri:///run/c.sock]",
            "'cri:///run/c.sock' is listed twice",
        ),
        ("stdout: some", "declared"),
        ("host_root: host", "not an absolute path"),
        ("prefixes: ['']", "empty"),
        ("stdot: all", "stdout"),
    ],
)
def test_mistakes_are_found_by_check(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, options)
    (problem,) = caught.value.problems
    assert problem.line == 6
    assert message in f"{problem.message} {problem.hint}"
