"""A window becomes a version of the data: `dvc add`."""

import os
import subprocess
import sys
from pathlib import Path

from flows import environment
from limbeck.errors import DataError


def track(folder: Path) -> Path:
    """Have DVC track a window; the file to commit. Twice is once: a window does not change.

    Args:
        folder: windows/NAME, in a repository that DVC knows.

    Raises:
        DataError: DVC refuses; its last words.

    """
    environment.settle()
    folder = folder.resolve()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "add", folder.name],
        cwd=folder.parent, env=dict(os.environ), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        words = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        said = words[0] if words else f"exit code {done.returncode}"
        raise DataError(f"`dvc add {folder}` failed: {said}. The window itself is whole; give the command again.")
    return folder.with_name(f"{folder.name}.dvc")
