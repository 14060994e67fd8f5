"""The default contract binds: a weaker student than the default one is refused, with figures."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipeline.clones import Clone, clone, copy_of, make_origin

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone on the project's own params.yaml, its teacher trained and labels made; never changed."""
    origin = make_origin(tmp_path_factory.mktemp("default-origin"), ROOT / "params.yaml")
    made = clone(origin, tmp_path_factory.mktemp("default") / "limbeck")
    made.dvc("repro", "label")
    return made


def test_a_harder_cut_breaks_a_named_clause_of_the_sensor(default: Clone, tmp_path: Path) -> None:
    made = copy_of(default, tmp_path / "limbeck")
    made.set_params({"targets.sensor.prune.ratio": 0.9})
    made.dvc("repro", "benchmark@sensor")
    done = made.stage("register@sensor", expect=3)
    assert re.search(
        r"register@sensor: .*digits-sensor.*nothing was registered\.\n  model\.\w+: max_drop( on \w+)?: "
        r"allowed [\d.]+, measured [\d.]+.*; distil or recover longer, cut less",
        done.stderr, re.DOTALL,
    ), done.stderr  # fmt: skip
    assert "Traceback" not in done.stderr
    assert not (made / "registry/sensor.json").exists()
    assert made.versions() == {}
