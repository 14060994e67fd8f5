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


INPUT: dict[str, Any] = {"mean": [0.5], "std": [0.5], "units": "0..1", "size": None}
WEIGHTS: dict[str, Any] = {
    "use": "weights", "file": "w.pt", "sha256": None, "key": None, "prefix": "", "match": "names",
    "model": {"use": "resnet", "width": 8, "depth": 8}, "input": INPUT, "adapt": {"use": "none"},
}  # fmt: skip
REGISTRY: dict[str, Any] = {
    "use": "registry", "model": "models:/t/3", "uri": "sqlite:///mlflow.db", "trust": [], "adapt": {"use": "none"},
}  # fmt: skip
LATENCY: dict[str, Any] = {"variant": "model.int8", "max_p95_ms": 60, "rounds": 3, "runs_per_round": 10}
PRUNE: dict[str, Any] = {
    "use": "magnitude", "scope": "layer", "ratio": 0.25, "max_macs": None, "latency": None, "max_ratio": 0.9,
    "steps": 1, "round_to": 2, "recover": {"epochs": 1, "lr": 0.1},
}  # fmt: skip
NO_QUALITY: dict[str, Any] = {
    "max_drop": None, "min_quality": None, "max_size_kb": 9, "max_p95_ms": 9, "max_peak_memory_mb": 9,
    "max_slowdown": 9, "require": "kept",
}  # fmt: skip


def test_the_projects_own_files_are_valid() -> None:
    for path in [ROOT / "params.yaml", TINY, *(ROOT / "recipes").glob("*.yaml")]:
        assert params.load(path).targets


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets.phone.export.opsett": 18}, r"targets.phone.export.opsett: unknown key; did you mean 'opset'\?"),
        ({"targets.phone.prune.ratio": 1.5}, r"targets.phone.prune.ratio: Input should be less than 1 \(found 1.5\)"),
        ({"targets.sensor.contract.max_drop": None}, r"targets.sensor.contract.max_drop: missing; add it"),
        ({"targets.sensor.contract": NO_QUALITY}, r"max_drop and min_quality are both null; give one of them a value"),
        ({"teacher.train.epochs": 0}, r"teacher.train.epochs: Input should be greater than 0 \(found 0\)"),
        ({"teacher.train.warmup_epochs": 9}, r"warmup_epochs is 9 and epochs is 4; warm up for fewer epochs"),
        ({"data.split.test": 0.9}, r"take 1.07 of the data; leave a share below 1"),
        (
            {"targets.phone.prune.max_macs": 5},
            r"prune: ratio and max_macs have values; give one of ratio, max_macs, max_parameters and latency",
        ),
        (
            {"targets.phone.prune": {**PRUNE, "ratio": None}},
            r"ratio, max_macs, max_parameters and latency are all null; give one",
        ),
        ({"targets.phone.prune.ratio": 0.95}, r"ratio is 0.95, but no layer may lose more than max_ratio, 0.9"),
        (
            {"targets.phone.prune.scope": "all"},
            r"prune.scope: Input should be 'global', 'layer' or 'block' \(found 'all'\)",
        ),
        (
            {"targets.phone.prune": {**PRUNE, "ratio": None, "latency": LATENCY}},
            r"prune.latency.max_p95_ms is 60, contract.max_p95_ms 50: what is cut would not keep the contract",
        ),
        (
            {
                "targets.phone.prune": {**PRUNE, "ratio": None, "latency": LATENCY | {"max_p95_ms": 40}},
                "targets.phone.quantize": {"use": "none"},
            },
            r"prune.latency.variant is model.int8, and quantize is \{use: none\}: no such file is made; measure model.fp32",
        ),
        (
            {
                "targets.phone.prune": {**PRUNE, "ratio": None, "latency": LATENCY | {"max_p95_ms": 40}},
                "targets.phone.quantize.arithmetic": "s8s8",
            },
            r"is measured as instructions ask for, and quantize.arithmetic is s8s8: set it to auto, and instructions to what",
        ),
        (
            {"targets.phone.student.model": {"use": "teacher", "width": 8}},
            r"model \{use: teacher\} takes no width: it is the teacher as it is; cut it by prune",
        ),
        (
            {"targets.phone.student.model": {"use": "teacher", "member": 0}},
            r"model \{use: teacher\}: member is a number from 1, found 0",
        ),
        ({"tracking.uri": "htp:/nowhere"}, r"'htp:/nowhere' is no tracking URI; expected e.g. sqlite"),
        ({"targets": {}}, r"targets: "),
        ({"teacher.use": "weigths"}, r"teacher.use: no teacher 'weigths'; did you mean 'weights'\?"),
        (
            {"teacher.use": None},
            r"teacher.use: missing; one of train, weights, checkpoint, encoder, registry, ensemble",
        ),
        ({"teacher.trian": 1}, r"teacher.trian: unknown key; did you mean 'train'\?"),
        ({"teacher": {**WEIGHTS, "fiel": "w.pt"}}, r"teacher.fiel: unknown key; did you mean 'file'\?"),
        ({"teacher": {**WEIGHTS, "adapt": {"use": "haed"}}}, r"teacher.adapt.use: Input should be 'all' or 'head'"),
        ({"teacher": {**WEIGHTS, "sha256": "abc"}}, r"teacher.sha256: String should match pattern"),
        ({"teacher": {**WEIGHTS, "input": {**INPUT, "std": [1, 2]}}}, r"mean has 1 values and std 2; give one of each"),
        (
            {"teacher": {"use": "ensemble", "members": [WEIGHTS], "weights": None}},
            r"members: Tuple should have at least 2",
        ),
        ({"teacher": {"use": "ensemble", "members": [WEIGHTS] * 2, "weights": [1]}}, r"2 members have 1 weights"),
        (
            {"teacher": {"use": "ensemble", "members": [WEIGHTS] * 2, "weights": None}, "label.features": True},
            r"an ensemble has no features of its own; distil its logits",
        ),
        (
            {
                "teacher": {"use": "ensemble", "members": [WEIGHTS] * 2, "weights": None},
                "targets.phone.student.model": {"use": "teacher", "member": 3},
            },
            r"targets.phone.student.model.member is 3; the teacher has 2 members",
        ),
        (
            {"teacher": {**REGISTRY, "model": "models:/t@champion"}},
            r"teacher.model: .*models:/NAME/VERSION.* an alias moves",
        ),
        ({"teacher": {**REGISTRY, "uri": "htp:/x"}}, r"'htp:/x' is no tracking URI"),
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


@pytest.mark.parametrize(
    "section", [WEIGHTS, REGISTRY, {"use": "ensemble", "members": [WEIGHTS, REGISTRY], "weights": [1, 2]}]
)
def test_every_kind_of_teacher_is_a_section_of_its_own(tmp_path: Path, section: dict[str, Any]) -> None:
    assert params.load(altered(tmp_path, {"teacher": section})).teacher.use == section["use"]


def test_what_would_adapt_a_teacher_may_be_left_standing(tmp_path: Path) -> None:
    waiting = {"use": "none", "augment": {"use": "none"}, "train": {}}
    loaded = params.load(altered(tmp_path, {"teacher": {**WEIGHTS, "adapt": waiting}})).teacher
    assert isinstance(loaded, params.WeightsTeacher)
    assert isinstance(loaded.adapt, Unused)


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
