"""A window becomes a version of the data. In a real clone, with a real dvc."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.refreshing.windows import track
from limbeck.data.window import read_window
from limbeck.errors import DataError
from limbeck.windows.intake import take_in
from tests.pipeline.clones import clone, make_origin
from tests.windows.conftest import RULES, TEACHER, base, drawn

__all__ = ["base"]

pytestmark = pytest.mark.slow


def test_a_window_is_tracked_once_and_comes_back_from_the_cache(tmp_path: Path, base: Path) -> None:
    made = clone(make_origin(tmp_path / "origin"), tmp_path / "limbeck")
    (made / "drop").mkdir()
    np.savez(made / "drop/new.npz", x=drawn(60, 1)[0])
    now = (made / "drop/new.npz").stat().st_ctime + 1
    (arrived,) = take_in(made / "drop", made / "windows", base, RULES, now=now, teacher=TEACHER).arrived
    file = track(arrived.folder)
    assert file == made / "windows/new.dvc"
    before = file.read_bytes()
    assert track(arrived.folder).read_bytes() == before
    made.git("add", "--all")
    assert sorted(made.git("diff", "--cached", "--name-only").split()) == ["windows/.gitignore", "windows/new.dvc"]
    digest = read_window(arrived.folder).about.digest
    shutil.rmtree(arrived.folder)
    made.dvc("checkout", "windows/new.dvc")
    assert read_window(arrived.folder).about.digest == digest


def test_outside_of_a_repository_dvc_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "windows/new").mkdir(parents=True)
    with pytest.raises(DataError, match=r"`dvc add .*windows/new` failed: .*repository.* The window itself is whole"):
        track(tmp_path / "windows/new")
