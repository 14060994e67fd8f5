"""The clones that these tests share."""

from pathlib import Path

import pytest

from tests.pipeline.clones import Clone, clone, copy_of, make_origin


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as a repository with one commit, on `tests/tiny.yaml`; never changed."""
    return make_origin(tmp_path_factory.mktemp("origin"))


@pytest.fixture(scope="session")
def prepared(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which `prepare` ran; never changed."""
    made = clone(origin, tmp_path_factory.mktemp("prepared") / "limbeck")
    made.stage("prepare")
    return made


@pytest.fixture
def workspace(prepared: Clone, tmp_path: Path) -> Clone:
    """A copy of `prepared` of one's own."""
    return copy_of(prepared, tmp_path / "limbeck")


@pytest.fixture(scope="session")
def repeated(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone brought up to date by plain `dvc repro`; never changed (take a `copy_of` it)."""
    made = clone(origin, tmp_path_factory.mktemp("by-dvc") / "limbeck")
    made.dvc("repro")
    return made
