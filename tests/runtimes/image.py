"""Images made on the spot from Debian's static busybox: no registry is needed, and none is asked.

`rootfs_tar` is what `docker import` takes; `docker_archive` is what `ctr images import` takes.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

BUSYBOX_IMAGE = "local/busybox:1"
PAUSE_IMAGE = "local/pause:1"
DIRECTORIES = ("bin", "dev", "etc", "proc", "sys", "tmp", "var", "var/log", "root")


def busybox_path() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise RuntimeError("no busybox on PATH: install busybox-static")
    return Path(found).resolve()


def rootfs_tar() -> bytes:
    """A root file system with busybox under all its names."""
    busybox = busybox_path()
    names = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(busybox, "bin/busybox")
        for name in names:
            if name != "busybox":
                entry = tarfile.TarInfo(f"bin/{name}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
        _add_bytes(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        _add_bytes(tar, "etc/group", b"root:x:0:\n")
    return buffer.getvalue()


def docker_archive(reference: str, layer: bytes, command: list[str]) -> bytes:
    """An image of one layer in the format of `docker save`."""
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created_by": "hostagent tests"}],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{layer_digest}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]}]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add_bytes(tar, config_name, config)
        _add_bytes(tar, layer_name, layer)
        _add_bytes(tar, "manifest.json", manifest)
    return buffer.getvalue()


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))
