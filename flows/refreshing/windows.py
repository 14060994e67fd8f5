"""What arrived becomes windows, and each window a version of the data: `dvc add`."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Set
from pathlib import Path

from flows import environment
from flows.turns import forget_zombies
from limbeck.data.window import read_about
from limbeck.errors import DataError, PublishingError, TrackingError
from limbeck.windows import shelf
from limbeck.windows.feedback import Told, take_feedback
from limbeck.windows.intake import take_in
from limbeck.windows.labelling import Teacher
from limbeck.windows.rules import WindowRules

FOLDER = "windows"
"""Below a workspace."""


def take(
    base: Path,
    drop: Path,
    data: Path,
    teacher: Path,
    rules: WindowRules,
    *,
    model: str,
    root: Path | None = None,
    uploads: Told | None = None,
    requested: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Turn everything that landed or was uploaded into windows, and have DVC track each; names of those set aside.

    Args:
        base: the workspace whose windows they are.
        drop: the folder where data land.
        data: what the champion was made of.
        teacher: its checkpoint; it labels what nobody did.
        rules: see `WindowRules`.
        model: name of the registered model: what devices uploaded of others is not taken.
        root: what the first champion was made of, whose samples are known, too; None: `data` is all there is.
        uploads: where devices put samples; None: nowhere.
        requested: new classes that may appear.
        say: told of every window.

    A server that cannot tell of uploads keeps nobody from what landed: that is said, and they are asked for again next time.

    Raises:
        DataError: the data or the teacher are not what they should be, or DVC refuses.

    """
    windows, asked = base / FOLDER, Teacher.of(teacher)
    found = take_in(drop, windows, data, rules, now=time.time(), teacher=asked, root=root, requested=requested, say=say)
    for name in found.waiting:
        say(f"{name} waits: it is not whole yet, or changed within the last {rules.settle_s:g} s (settle_s)")
    arrived = [*found.arrived]
    _track_new(windows)
    if uploads is not None:
        try:
            uploaded = take_feedback(
                uploads, windows, data, rules, model=model, now=time.time(), teacher=asked, root=root, say=say
            )
        except (TrackingError, PublishingError) as error:
            say(f"uploads wait: {error}")
        else:
            arrived += [uploaded] if uploaded else []
            _track_new(windows)
    return [each.name for each in arrived if each.reasons]


def _track_new(windows: Path) -> None:
    """Track what arrived now, or before a kill came between."""
    for folder in shelf.folders(windows):
        if not folder.with_name(f"{folder.name}.dvc").exists():
            track(folder)


def pending(base: Path, known: Set[str]) -> list[Path]:
    """Windows of a workspace whose digests are not among the known ones, in the order of arrival."""
    windows = base / FOLDER
    found = shelf.current(windows) if windows.is_dir() else []
    return [folder for folder in found if read_about(folder).digest not in known]


def track(folder: Path) -> Path:
    """Have DVC track a window; the file to commit. Twice is once: a window does not change.

    Args:
        folder: windows/NAME, in a repository that DVC knows.

    Raises:
        DataError: DVC refuses; its last words.

    """
    environment.settle()
    folder = folder.resolve()
    forget_zombies(next(place for place in folder.parents if (place / ".dvc").is_dir()))
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "add", folder.name],
        cwd=folder.parent, env=dict(os.environ), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        words = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        said = words[0] if words else f"exit code {done.returncode}"
        raise DataError(f"`dvc add {folder}` failed: {said}. The window itself is whole; give the command again.")
    return folder.with_name(f"{folder.name}.dvc")
