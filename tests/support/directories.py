"""Directories for tests that run something as another user than the one who runs the tests."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def anyones_directory() -> Iterator[Path]:
    """A directory that every user may enter: pytest's own are closed, and closed again by every pytest that starts."""
    directory = Path(tempfile.mkdtemp(prefix="hostagent-test."))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
