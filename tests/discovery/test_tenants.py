"""A workload that means harm: nothing outside its own tree and mounts is read, nothing hangs, no tag is forged."""

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostagent.discovery.containers.options import ContainersOptions, TagSources
from hostagent.discovery.containers.targets import ContainerTargets
from hostagent.discovery.runtime.container import Mount, Pod
from tests.discovery.examples import container
from tests.discovery.tenant import SECRET, Tenant


@pytest.fixture
def tenant(tmp_path: Path) -> Tenant:
    return Tenant(tmp_path)


def link_everywhere(tenant: Tenant, target: str) -> None:
    for directory in (tenant.root / "var/log", tenant.volume):
        (directory / "evil.log").symlink_to(target)
        (directory / "evil").symlink_to(os.path.dirname(target) or "..")


EVIL_PATHS = [
    f"{directory}/{path}"
    for directory in ("/var/log", "/data")
    for path in ("evil.log", "*.log", "evil/shadow", "evil/*", "*/shadow", "**/*", "evil/etc/shadow", "evil/../shadow")
]


@pytest.mark.parametrize(
    "target", ["{secret}", "/etc/shadow", "../" * 30 + "{secret}", "../../../etc/shadow", "../../../../etc/shadow"]
)
def test_no_link_leads_out(tenant: Tenant, target: str) -> None:
    link_everywhere(tenant, target.format(secret=tenant.secret))
    assert tenant.read(*EVIL_PATHS) == {}


def test_a_link_to_the_containers_own_shadow_gives_its_own(tenant: Tenant) -> None:
    (tenant.root / "etc").mkdir()
    (tenant.root / "etc/shadow").write_bytes(b"its own\n")
    link_everywhere(tenant, "/etc/shadow")
    assert set(tenant.read(*EVIL_PATHS).values()) == {b"its own\n"}


def test_declaring_the_secret_itself_gives_the_containers_own(tenant: Tenant) -> None:
    assert tenant.read(str(tenant.secret), "/etc/shadow", "/etc/*", "/../etc/shadow") == {}


def test_a_mount_whose_source_became_a_link_leads_nowhere(tenant: Tenant) -> None:
    (tenant.volume / "secret.log").write_bytes(b"own\n")
    outcome = tenant.outcome({"LOG_COLLECT_FILES": "/data/*.log"})
    assert list(tenant.read_of(outcome).values()) == [b"own\n"]
    tenant.volume.rename(tenant.host / "aside")
    tenant.volume.symlink_to(tenant.secret.parent)
    assert tenant.read_of(outcome) == {}


@pytest.mark.requires(root=True)
def test_only_regular_files_are_read_and_nothing_waits_for_a_writer(tenant: Tenant) -> None:
    for directory in (tenant.root / "var/log", tenant.volume):
        os.mkfifo(directory / "pipe.log")
        os.mknod(directory / "device.log", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        os.mknod(directory / "deleted.log", stat.S_IFCHR, os.makedev(0, 0))  # how overlayfs marks a deleted file
        (directory / "dir.log").mkdir()
        os.mknod(directory / "socket.log", stat.S_IFSOCK | 0o666)
    (tenant.volume / "good.log").write_bytes(b"own\n")
    assert tenant.read("/var/log/*.log", "/data/*.log", "/data/pipe.log") == {"/data/good.log": b"own\n"}


def test_proc_is_no_place_for_logs(tenant: Tenant) -> None:
    tenant.mounts.append(Mount("/p", "/proc"))
    (tenant.root / "proc").symlink_to("/proc")
    assert tenant.read("/p/self/environ", "/p/*/cmdline", "/proc/self/environ", "/p/kmsg", "/p/version") == {}


def test_a_hard_link_within_the_tree_is_the_tenants_own_file(tenant: Tenant) -> None:
    (tenant.root / "var/log/a.log").write_bytes(b"own\n")
    os.link(tenant.root / "var/log/a.log", tenant.root / "var/log/b.log")
    assert tenant.read("/var/log/*.log") == {"/var/log/a.log": b"own\n", "/var/log/b.log": b"own\n"}


def test_a_swap_race_never_gives_what_is_outside(tenant: Tenant) -> None:
    logs, aside, evil = (tenant.volume / name for name in ("logs", "aside", "evil"))
    logs.mkdir()
    (logs / "secret.log").write_bytes(b"own\n")
    evil.symlink_to(tenant.secret.parent)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            logs.rename(aside)
            evil.rename(logs)
            logs.rename(evil)
            aside.rename(logs)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen: set[bytes] = set()
    try:
        for _ in range(300):
            seen |= set(tenant.read("/data/logs/*.log", "/data/logs/secret.log", "/data/*/secret.log").values())
    finally:
        stop.set()
        swapping.join()
    assert seen == {b"own\n"}


NAMES = st.sampled_from(["evil", "evil.log", "a", "var", "log", "data", "etc", "shadow", "proc", "..", ".", "*", "**"])
HOSTILE_PATHS = st.lists(NAMES, min_size=1, max_size=6).map(lambda names: "/" + "/".join(names)) | st.text(max_size=30)
LINKS = st.sampled_from(
    ["/", "..", "../../..", "/etc", "/data/evil", "/proc/self/root", "evil", "{host}", "{host}/etc"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(paths=st.lists(HOSTILE_PATHS, max_size=8), links=st.tuples(LINKS, LINKS, LINKS, LINKS))
def test_whatever_is_declared_and_linked_no_secret_comes_out(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], links: tuple[str, ...]
) -> None:
    tenant = Tenant(tmp_path_factory.mktemp("host"))
    places = [tenant.root / "evil", tenant.root / "var/log/evil", tenant.volume / "evil", tenant.volume / "evil.log"]
    for place, link in zip(places, links, strict=True):
        place.symlink_to(link.format(host=tenant.host))
    assert SECRET not in tenant.read(*paths).values()


# -- names and tags

FORGED = {
    "io.kubernetes.pod.namespace": "victim",
    "io.kubernetes.pod.name": "victim",
    "k8s_pod_namespace": "victim",
    "aliyun.logs.a": "stdout",
    "aliyun.logs.a.tags": "k8s_pod_namespace=victim,k8s_pod=victim,container_id=victim,image=victim,host=victim",
    "aliyun.logs.a.target": "victim",
}


def test_forged_tags_lose_to_the_runtimes() -> None:
    pod = Pod(name="mine", namespace="own", uid="u-1", labels={"k8s_pod_namespace": "victim"})
    one = container(labels=FORGED, pod=pod, runtime="cri")
    tags_from = TagSources(
        labels={"k8s_pod_namespace": "k8s_pod_namespace"}, k8s_labels={"k8s_pod_namespace": "k8s_pod"}
    )
    for options in (ContainersOptions(), ContainersOptions(tags_from=tags_from)):
        (target,) = ContainerTargets("s", options).of(one).targets.values()
        assert target.tags["k8s_pod_namespace"] == "own"
        assert target.tags["k8s_pod"] == "mine"
        assert target.tags["container_id"] == one.id
        assert [key for key, value in target.tags.items() if value == "victim"] == ["target"]


def test_a_container_of_no_pod_can_not_seem_to_be_of_one() -> None:
    (target,) = ContainerTargets("s", ContainersOptions()).of(container(labels=FORGED)).targets.values()
    assert not any(name.startswith("k8s_") for name in target.tags)


def test_a_name_another_tenant_uses_is_another_target(tenant: Tenant) -> None:
    targets = ContainerTargets("s", ContainersOptions())
    env = {"aliyun_logs_shop": "/data/*.log,stdout", "aliyun_logs_shop_target": "shop"}
    one = targets.of(container(id="a" * 64, env=env, mounts=tuple(tenant.mounts)))
    (tenant.host / "volumes/other").mkdir()
    other_mounts = (Mount("/data", str(tenant.host / "volumes/other")),)
    other = targets.of(container(id="b" * 64, env=env, mounts=other_mounts))
    assert len(one.targets) == len(other.targets) == 2
    assert one.targets.keys().isdisjoint(other.targets)
    assert {target.tags["container_id"] for target in one.targets.values()} == {"a" * 64}


def test_images_and_names_can_not_break_a_line_of_the_log() -> None:
    one = container(name="a\nb", image="x\x00\x1b[2J" + "y" * 5000, env={"aliyun_logs_a": "\n"})
    outcome = ContainerTargets("s", ContainersOptions()).of(one)
    (target,) = outcome.targets.values()
    texts = [*(value for value in target.tags.values() if isinstance(value, str)), target.declaration]
    texts += [notice.subject + notice.message for notice in outcome.notices]
    assert all(text.isprintable() and len(text) < 1100 for text in texts)
