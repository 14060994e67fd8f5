from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck import params
from limbeck.errors import ParamsError
from limbeck.params import Unused, check_tracking_uri, dotted
from tests.conftest import ROOT, TINY


def altered(tmp_path: Path, changes: dict[str, Any]) -> Path:
    """tests/tiny.yaml with values at dotted keys replaced (None removes the key)."""
    raw = yaml.safe_load(TINY.read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = raw
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_the_projects_own_files_are_valid() -> None:
    for path in [ROOT / "params.yaml", TINY, *(ROOT / "recipes").glob("*.yaml")]:
        assert params.load(path).targets


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets.phone.prune.ration": 0.5}, r"targets.phone.prune.ration: unknown key; did you mean 'ratio'\?"),
        ({"targets.phone.prune.ratio": 1.5}, r"targets.phone.prune.ratio: Input should be less than 1 \(found 1.5\)"),
        ({"targets.sensor.contract.max_drop": None}, r"targets.sensor.contract.max_drop: missing; add it"),
        ({"teacher.train.epochs": 0}, r"teacher.train.epochs: Input should be greater than 0 \(found 0\)"),
        ({"teacher.train.warmup_epochs": 9}, r"warmup_epochs is 9 and epochs is 4; warm up for fewer epochs"),
        ({"data.split.test": 0.9}, r"take 1.07 of the data; leave a share below 1"),
        ({"targets.phone.prune.max_macs": 5}, r"ratio is 0.25 and max_macs is 5; give a value to one"),
        ({"tracking.uri": "htp:/nowhere"}, r"'htp:/nowhere' is no tracking URI; expected e.g. sqlite"),
        ({"targets": {}}, r"targets: "),
        ({"targets.phone.contract.require": "hoped"}, r"Input should be 'kept' or 'proven' \(found 'hoped'\)"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected_and_found(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        params.load(altered(tmp_path, changes))


@pytest.mark.parametrize("technique", ["distill", "prune", "quantize"])
def test_a_technique_can_be_chosen_away_alone_or_with_its_settings_left_standing(
    tmp_path: Path, technique: str
) -> None:
    alone = params.load(altered(tmp_path, {f"targets.phone.{technique}": {"use": "none"}}))
    left = params.load(altered(tmp_path, {f"targets.phone.{technique}.use": "none"}))
    for loaded in (alone, left):
        assert isinstance(getattr(loaded.targets["phone"], technique), Unused)


def test_a_file_that_is_missing_or_no_yaml_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="is missing; run in the project's folder"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1,")
    with pytest.raises(ParamsError, match="is no YAML"):
        params.load(tmp_path / "params.yaml")


def test_sections_are_found_in_the_target_first() -> None:
    tiny = params.load(TINY)
    assert tiny.section("contract.max_drop", "phone") == 0.5
    assert tiny.section("seed", "phone") == 0
    assert dotted("student.train", "phone") == "targets.phone.student.train"
    assert dotted("seed", "phone") == "seed"


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "http://127.0.0.1:5000", "postgresql+psycopg://u@h/db"])
def test_tracking_uris_that_mlflow_understands_pass(uri: str) -> None:
    assert check_tracking_uri(uri) == uri


@pytest.mark.parametrize("uri", ["", "mlflow.db", "http://", "gopher://x", "http://host:port"])
def test_tracking_uris_that_it_does_not_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="is no tracking URI"):
        check_tracking_uri(uri)
