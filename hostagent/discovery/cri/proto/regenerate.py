"""Compiles the `.proto` files of this folder with grpcio-tools; a developer's tool, never imported by the agent."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE_ROOT = HERE.parents[3]
PROTOS = ("cri.proto", "containerd.proto")


def generate(out: Path) -> None:
    """Write `*_pb2.py` and `*_pb2.pyi` under `out`, in this package's own sub-folder."""
    from grpc_tools import protoc  # type: ignore[import-untyped]  # noqa: PLC0415 - only developers have it

    sources = [str((HERE / name).relative_to(PACKAGE_ROOT)) for name in PROTOS]
    arguments = ["protoc", f"-I{PACKAGE_ROOT}", f"--python_out={out}", f"--pyi_out={out}", *sources]
    if protoc.main(arguments) != 0:
        raise SystemExit(f"protoc could not compile {', '.join(sources)}: see its messages above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE_ROOT)
