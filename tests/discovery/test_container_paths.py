"""Where the files of a container are found on the host."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.discovery.containers.paths import ContainerFiles, upper_shows_writes
from hostagent.discovery.runtime.container import Mount
from tests.discovery.examples import container
from tests.discovery.tenant import Tenant


@pytest.fixture
def tenant(tmp_path: Path) -> Tenant:
    return Tenant(tmp_path)


def put(directory: Path, path: str, text: str = "own\n") -> None:
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_text(text)


def test_a_file_the_container_wrote_into_its_own_tree(tenant: Tenant) -> None:
    put(tenant.root, "var/log/app.log")
    assert tenant.read("/var/log/app.log") == {"/var/log/app.log": b"own\n"}
    assert tenant.read("/var/log/*.log") == {"/var/log/app.log": b"own\n"}
    assert tenant.read("/var/**/*.log") == {"/var/log/app.log": b"own\n"}


def test_a_file_in_a_mount_is_found_at_the_mounts_source(tenant: Tenant) -> None:
    put(tenant.volume, "logs/app.log")
    put(tenant.root, "data/logs/hidden.log", "hidden by the mount\n")
    assert tenant.read("/data/logs/*.log") == {"/data/logs/app.log": b"own\n"}


def test_the_longest_mount_that_covers_a_path_counts(tenant: Tenant) -> None:
    inner = tenant.host / "volumes/inner"
    put(inner, "app.log", "inner\n")
    put(tenant.volume, "logs/app.log", "hidden by the inner mount\n")
    tenant.mounts.append(Mount("/data/logs", str(inner)))
    assert tenant.read("/data/logs/app.log") == {"/data/logs/app.log": b"inner\n"}


def test_a_pattern_above_mounts_reaches_into_each_of_them(tenant: Tenant) -> None:
    for name in ("a", "b"):
        put(tenant.host / f"volumes/{name}", "logs/app.log", f"{name}\n")
        tenant.mounts.append(Mount(f"/srv/{name}", str(tenant.host / f"volumes/{name}")))
    put(tenant.host / "volumes/deep", "logs/app.log", "deep\n")
    tenant.mounts.append(Mount("/srv/other/deep", str(tenant.host / "volumes/deep")))
    put(tenant.root, "srv/c/logs/app.log", "c\n")
    expected = {f"/srv/{name}/logs/app.log": f"{name}\n".encode() for name in "abc"}
    assert tenant.read("/srv/*/logs/*.log") == expected
    assert tenant.read("/srv/**/app.log") == {**expected, "/srv/other/deep/logs/app.log": b"deep\n"}


def test_a_mounted_file_and_nothing_beside_it(tenant: Tenant) -> None:
    put(tenant.host / "config", "app[1].log")
    put(tenant.host / "config", "app1.log", "a neighbour\n")
    tenant.mounts.append(Mount("/etc/app.log", str(tenant.host / "config/app[1].log")))
    assert list(tenant.read("/etc/app.log").values()) == [b"own\n"]
    assert list(tenant.read("/etc/*.log").values()) == [b"own\n"]
    assert tenant.read("/etc/app.log/x", "/etc/other.log") == {}


def test_a_link_in_the_container_may_lead_into_a_mount(tenant: Tenant) -> None:
    put(tenant.volume, "logs/app.log")
    (tenant.root / "app").symlink_to("data")
    (tenant.root / "srv").mkdir()
    (tenant.root / "srv/current").symlink_to("../app/./logs")
    assert tenant.read("/srv/current/*.log") == {"/data/logs/app.log": b"own\n"}
    assert tenant.read("/app/logs/app.log") == {"/data/logs/app.log": b"own\n"}


def test_a_link_as_the_log_itself_means_what_it_means_in_the_container(tenant: Tenant) -> None:
    put(tenant.root, "var/log/app-2.log")
    (tenant.root / "var/log/app.log").symlink_to("app-2.log")
    assert tenant.read("/var/log/app.log") == {"/var/log/app-2.log": b"own\n"}


def test_a_link_within_a_mount_stays_in_the_container(tenant: Tenant) -> None:
    put(tenant.root, "var/log/app.log")
    (tenant.volume / "logs").symlink_to("/var/log")
    (tenant.volume / "up").symlink_to("../var/log")
    assert tenant.read("/data/logs/app.log") == {"/var/log/app.log": b"own\n"}
    assert tenant.read("/data/up/app.log") == {"/var/log/app.log": b"own\n"}


def test_links_that_lead_in_circles_end(tenant: Tenant) -> None:
    (tenant.root / "a").symlink_to("/b")
    (tenant.root / "b").symlink_to("/a")
    assert tenant.read("/a/x.log", "/b/*.log") == {}


def test_what_is_not_there_yet_is_watched_for_where_it_will_be(tenant: Tenant) -> None:
    located = ContainerFiles(tenant.container({})).locate("/var/log/later/app.log")
    assert [(place.root, place.path) for place in located.places] == [(str(tenant.root), "/var/log/later/app.log")]


def test_beneath_a_host_root_its_links_are_the_hosts(tenant: Tenant) -> None:
    put(tenant.volume, "app.log")
    (tenant.host / "linked").symlink_to("/volumes")
    one = container(mounts=(Mount("/data", "/linked/data"),), roots=("/overlay/diff",))
    files = ContainerFiles(one, str(tenant.host))
    assert [place.root for place in files.locate("/data/app.log").places] == [str(tenant.volume)]
    assert [place.root for place in files.locate("/var/x.log").places] == [str(tenant.root)]


def test_what_is_out_of_reach_is_said(tenant: Tenant) -> None:
    gone = container(mounts=(Mount("/data", "/nowhere/data"), Mount("/run", "", "tmpfs")), pid=999_999_999)
    files = ContainerFiles(gone, str(tenant.host))
    for path, said in (
        ("/data/a.log", "can't be read: No such file"),
        ("/run/a.log", "a tmpfs is there only while"),
        ("/var/a.log", "doesn't say where its root is"),
    ):
        located = files.locate(path)
        assert located.places == ()
        assert said in located.problems[0][0]


def test_a_directory_is_no_log(tenant: Tenant) -> None:
    assert "is a directory" in ContainerFiles(tenant.container({})).locate("/data").problems[0][0]


def test_a_process_that_is_not_the_containers_shows_it_nothing() -> None:
    """Its number may be another process's by now; this test's process is in no container."""
    one = container(pid=os.getpid(), mounts=(Mount("/run", "", "tmpfs"),))
    assert ContainerFiles(one).locate("/run/x.log").places == ()
    assert ContainerFiles(one).locate("/etc/hostname").places == ()


@pytest.fixture
def merged(tenant: Tenant) -> Iterator[Path]:
    """A mount where the runtime says the merged directory is."""
    directory = tenant.host / "empty"
    subprocess.run(["mount", "-t", "tmpfs", "merged", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.mark.requires(root=True, tools=("mount",))
@pytest.mark.parametrize("kernel, place", [("6.18.2-amd64", "upper"), ("6.1.0-28-amd64", "merged"), ("?", "merged")])
def test_an_older_kernel_shows_writes_in_the_merged_directory(
    tenant: Tenant, merged: Path, kernel: str, place: str
) -> None:
    located = ContainerFiles(tenant.container({}), kernel=kernel).locate("/var/log/app.log")
    assert [one.root for one in located.places] == [str({"upper": tenant.root, "merged": merged}[place])]


@pytest.mark.requires(root=True, tools=("mount",))
def test_links_of_the_image_are_seen_in_the_merged_directory(tenant: Tenant, merged: Path) -> None:
    (merged / "app").symlink_to("/data")
    put(tenant.volume, "app.log")
    assert tenant.read("/app/*.log") == {"/data/app.log": b"own\n"}


@pytest.mark.parametrize("kernel, shows", [("6.18.0", True), ("7.0.0-1", True), ("6.17.9", False), ("5.15", False)])
def test_kernels_that_show_writes_in_the_upper_directory(kernel: str, *, shows: bool) -> None:
    assert upper_shows_writes(kernel) is shows
