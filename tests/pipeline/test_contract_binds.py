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


@pytest.mark.parametrize(
    ("values", "clause"),
    [
        ({"targets.sensor.distill": {"use": "none"}}, "max_drop"),
        ({"targets.sensor.prune.ratio": 0.85}, "max_drop"),
    ],
    ids=["no distillation", "harder cut"],
)
def test_a_weaker_sensor_breaks_a_named_clause(
    default: Clone, tmp_path: Path, values: dict[str, object], clause: str
) -> None:
    made = copy_of(default, tmp_path / "limbeck")
    made.set_params(values)
    made.dvc("repro", "benchmark@sensor")
    done = made.stage("register@sensor", expect=3)
    assert re.search(
        rf"register@sensor: .*digits-sensor.*nothing was registered\.\n  model\.\w+: {clause}( on \w+)?: "
        r"allowed [\d.]+, measured [\d.]+.*; distil or recover longer, cut less",
        done.stderr, re.DOTALL,
    ), done.stderr  # fmt: skip
    assert "Traceback" not in done.stderr
    assert not (made / "registry/sensor.json").exists()
    assert made.versions() == {}
