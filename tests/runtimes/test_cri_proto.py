from __future__ import annotations

from pathlib import Path

import pytest

from hostagent.discovery.cri.proto import regenerate


@pytest.mark.requires(modules=("grpc_tools",))
@pytest.mark.parametrize("name", ["cri", "containerd"])
@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2.pyi"])
def test_committed_messages_are_what_the_proto_file_says(tmp_path: Path, name: str, suffix: str) -> None:
    regenerate.generate(tmp_path)
    made = next(tmp_path.rglob(f"{name}{suffix}"))
    assert without_versions(made) == without_versions(regenerate.HERE / made.name)


def without_versions(path: Path) -> list[str]:
    """The generated lines, less the compiler's version, which may differ from the one that made the committed file."""
    lines = path.read_text().splitlines()
    begin = next((n for n, line in enumerate(lines) if line.startswith(("DESCRIPTOR", "class"))), 0)
    return lines[begin:]
