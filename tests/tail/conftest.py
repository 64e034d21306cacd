import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def fuse_mount(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A directory, and the same once more through FUSE, where nobody is told what changes behind it; root only."""
    if "fuse" not in Path("/proc/filesystems").read_text():
        pytest.skip("the kernel has no FUSE")
    behind, mounted = tmp_path / "behind", tmp_path / "mounted"
    behind.mkdir()
    mounted.mkdir()
    subprocess.run(["bindfs", "-o", "attr_timeout=0,entry_timeout=0", behind, mounted], check=True)
    yield behind, mounted
    subprocess.run(["umount", "--lazy", mounted], check=True)
