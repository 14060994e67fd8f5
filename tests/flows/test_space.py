from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flows.space import Range, Space, read, with_values
from limbeck.errors import ParamsError
from tests.conftest import ROOT, TINY

RAW: dict[str, Any] = yaml.safe_load(TINY.read_text())


def test_the_projects_own_space_names_places_that_its_params_have() -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    space = read(ROOT / "searches/student.yaml")
    for target in raw["targets"]:
        with_values(raw, target, dict.fromkeys(space.choose) | space.fix)


def test_values_go_into_their_places_and_other_targets_away() -> None:
    changed = with_values(RAW, "sensor", {"student.model.width": 24, "prune.ratio": 0.4})
    assert list(changed["targets"]) == ["sensor"]
    assert changed["targets"]["sensor"]["student"]["model"]["width"] == 24
    assert RAW["targets"]["sensor"]["student"]["model"]["width"] != 24, "the base stays as it was"


@pytest.mark.parametrize(
    ("target", "place", "message"),
    [
        ("watch", "prune.ratio", r"no target 'watch'; there are phone, sensor"),
        ("sensor", "prune.ration", r"targets.sensor has no prune.ration"),
        ("sensor", "prune.ratio.low", r"targets.sensor has no prune.ratio.low"),
    ],
)
def test_a_place_that_does_not_exist_is_named(target: str, place: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        with_values(RAW, target, {place: 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("choose: {a: [1]}", r"choose.a"),
        ("choose: {a: {low: 2, high: 1}}", r"from 2 to 1 is no range"),
        ("choose: {a: {low: 0, high: 1, log: true}}", r"no range of positive numbers"),
        ("fix: {a: 1}", r"choose: missing; add it"),
        ("chose: {a: [1, 2]}", r"chose: unknown key; did you mean 'choose'"),
        ("a: [", r"is no YAML"),
    ],
)
def test_a_file_that_is_no_space_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=message):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"none.yaml is missing; name a file such as searches/student.yaml"):
        read(tmp_path / "none.yaml")


@given(st.integers(0, 50))
def test_what_is_suggested_lies_in_the_space(seed: int) -> None:
    space = Space(choose={"a": [1, 2, 3], "b": Range(low=0.1, high=0.2), "c": Range(low=4, high=64, log=True)})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    values = space.suggest(study.ask())
    assert values["a"] in (1, 2, 3)
    assert isinstance(values["b"], float)
    assert 0.1 <= values["b"] <= 0.2
    assert isinstance(values["c"], int)
    assert 4 <= values["c"] <= 64
