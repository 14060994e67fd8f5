"""What a refresh takes in before it looks: what landed first, then what devices uploaded. With a dvc that only notes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.refreshing import windows
from limbeck.data.window import read_about
from limbeck.errors import LimbeckError, PublishingError, TrackingError
from limbeck.windows import shelf
from limbeck.windows.labelling import Teacher
from tests.tracking.conftest import MODEL
from tests.windows.conftest import RULES, TEACHER, base, drawn

__all__ = ["base"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a window's worth of samples in its drop folder."""

    def track(folder: Path) -> None:
        folder.with_name(f"{folder.name}.dvc").touch()

    monkeypatch.setattr(windows, "track", track)
    monkeypatch.setattr(Teacher, "of", lambda _: TEACHER)
    (tmp_path / "drop").mkdir()
    np.savez(tmp_path / "drop/new.npz", x=drawn(60, 1)[0])
    return tmp_path


def take(workspace: Path, data: Path, **more: Any) -> list[str]:
    return windows.take(workspace, workspace / "drop", data, workspace / "teacher", RULES, model=MODEL, **more)


class Mute:
    """A place of reports that fails."""

    def __init__(self, error: LimbeckError) -> None:
        self.error = error

    def kept(self, model: str) -> set[str]:
        return {"a" * 16}

    def reporters(self) -> list[str]:
        raise self.error

    told: Any = reporters
    hear: Any = reporters


@pytest.mark.parametrize("error", [TrackingError("it answered 503 to list reports."), PublishingError("no place.")])
def test_what_landed_is_tracked_where_the_server_cannot_tell_of_uploads(
    workspace: Path, base: Path, error: LimbeckError
) -> None:
    said: list[str] = []
    assert take(workspace, base, uploads=Mute(error), say=said.append) == []
    assert [path.name for path in shelf.folders(workspace / "windows")] == ["new"]
    assert (workspace / "windows/new.dvc").exists()
    assert said[-1] == f"uploads wait: {error}"


def test_what_a_kill_left_untracked_is_tracked_next_time(workspace: Path, base: Path) -> None:
    take(workspace, base)
    (workspace / "windows/new.dvc").unlink()
    take(workspace, base)
    assert (workspace / "windows/new.dvc").exists()


def test_what_the_first_champion_learned_from_is_not_taken_again(workspace: Path, base: Path) -> None:
    (workspace / "root/train").mkdir(parents=True)
    np.save(workspace / "root/train/x.npy", drawn(60, 1)[0][:9])
    take(workspace, base, root=workspace / "root")
    assert read_about(workspace / "windows/new").counts.repeated == 9
