"""Comparing methods over seeds: what counts as a gain, and what is trained again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from limbeck import comparison
from limbeck.comparison import CONTROL, Comparison, gain_over, read_methods, verdict_of
from limbeck.components import Component
from limbeck.data.splits import read
from limbeck.distillation import begun
from limbeck.errors import ComponentError, ParamsError
from limbeck.evaluation import Scores
from limbeck.training import Fitted
from tests.conftest import ROOT, TINY

KD = {"kd": Component(use="kd", alpha=0.5, temperature=2.0)}


def scores(shares: list[float], num: int = 400) -> list[Scores]:
    """For each seed, scores of which that share is 1."""
    return [(np.arange(num) < share * num).astype(float) for share in shares]


def test_the_interval_of_a_gain_holds_the_spread_between_seeds_by_students_t() -> None:
    gain = gain_over(scores([0.5, 0.6, 0.7]), scores([0.4, 0.4, 0.4]), 100, 0)
    of_seeds = t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert gain["value"] == pytest.approx(0.2)
    assert gain["high"] - gain["value"] > of_seeds, "and that between samples"
    assert gain["high"] - gain["value"] < of_seeds + 1.96 * 0.5 / np.sqrt(400)


@given(st.lists(st.floats(0.1, 0.9), min_size=2, max_size=5), st.floats(-0.05, 0.05))
def test_equal_methods_gain_nothing_and_the_order_turns_the_sign(shares: list[float], shift: float) -> None:
    ours, theirs = scores(shares), scores([share + shift for share in shares])
    same = gain_over(ours, ours, 100, 0)
    assert (same["value"], verdict_of(same)) == (0.0, "none")
    there, back = gain_over(ours, theirs, 100, 0), gain_over(theirs, ours, 100, 0)
    assert there["low"] == pytest.approx(-back["high"])
    assert there["value"] == pytest.approx(-back["value"])


def test_a_gain_inside_the_noise_is_called_none() -> None:
    assert verdict_of({"value": 0.01, "low": -0.001, "high": 0.02}) == "none"
    assert verdict_of({"value": 0.01, "low": 0.001, "high": 0.02}) == "gain"
    assert verdict_of({"value": -0.01, "low": -0.02, "high": -0.001}) == "loss"


def test_one_seed_is_judged_by_its_samples_alone() -> None:
    gain = gain_over(scores([0.9]), scores([0.5]), 100, 0)
    assert verdict_of(gain) == "gain"


@pytest.fixture
def workspace(tmp_path: Path, data: Path) -> Path:
    """Prepared data, soft labels by name only: the trainings of these tests are made up."""
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "params.yaml").write_text(TINY.read_text())
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/logits.npy").touch()
    (tmp_path / "labels/labels.json").write_text("{}")
    return tmp_path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for training: a fresh network; says who asked."""
    calls: list[str] = []

    def fresh(student: Any, distill: Any, *, data: Path, seed: int, **_: Any) -> tuple[Any, Fitted]:
        calls.append(f"{distill.use} {seed}")
        return begun(student, data, seed)[1], Fitted(best=0.5, best_epoch=0)

    monkeypatch.setattr(comparison, "train_student", fresh)
    return calls


def run(workspace: Path, methods: dict[str, Component], seeds: int) -> list[comparison.Compared]:
    return Comparison.of(workspace, "sensor", lambda *_: None).run(methods, range(seeds), lambda _: None)


def test_every_method_stands_beside_the_control_on_the_same_seeds(workspace: Path, trained: list[str]) -> None:
    rows = run(workspace, KD, 2)
    assert trained == ["none 0", "none 1", "kd 0", "kd 1"]
    assert [(row.method, row.gain is None) for row in rows] == [(CONTROL, True), ("kd", False)]
    assert (workspace / "compare/sensor.json").exists()
    kept = np.load(workspace / "compare/sensor/kd/1/scores.npy")
    assert len(kept) == len(read(workspace / "data", "test")[1])


def test_what_is_done_is_kept_until_what_made_it_changes(workspace: Path, trained: list[str]) -> None:
    run(workspace, KD, 1)
    run(workspace, KD, 1)
    assert trained == ["none 0", "kd 0"]
    run(workspace, {"kd": Component(use="kd", alpha=0.9, temperature=2.0)}, 1)
    assert trained == ["none 0", "kd 0", "kd 0"], "the control stays"
    (workspace / "labels/labels.json").write_text('{"other": 1}')
    run(workspace, KD, 2)
    assert trained[3:] == ["none 0", "none 1", "kd 0", "kd 1"]


def test_a_killed_comparison_goes_on_with_the_training_that_it_was_in(
    workspace: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = comparison.train_student

    def killed(*arguments: Any, report: Any, **more: Any) -> Any:
        (report.scratch / "student.pt").write_bytes(b"state")
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "train_student", killed)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, KD, 1)

    def resumed(*arguments: Any, report: Any, **more: Any) -> Any:
        states.append((report.scratch / "student.pt").exists())
        return made_up(*arguments, report=report, **more)

    states: list[bool] = []
    monkeypatch.setattr(comparison, "train_student", resumed)
    run(workspace, KD, 1)
    assert states == [True, False]
    assert not list(workspace.rglob("student.pt")), "a state that nobody needs any more is removed"


def test_the_projects_own_losses_are_ones_that_there_are() -> None:
    assert "dkd" in read_methods(ROOT / "searches/losses.yaml")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("kd: {use: kdd, alpha: 0.5}", ComponentError, r"did you mean 'kd'"),
        ("kd: {use: kd, alpha: 2, temperature: 1}", ComponentError, r"alpha"),
        ("kd: 3", ParamsError, r"names no methods"),
        ("K D: {use: kd}", ParamsError, r"names no methods"),
    ],
)
def test_a_file_that_names_no_methods_says_so(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "methods.yaml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        read_methods(path)


def test_what_is_missing_is_named_with_the_next_step(workspace: Path, trained: list[str]) -> None:
    with pytest.raises(ParamsError, match=r"no target 'sensr'; did you mean 'sensor'\?"):
        Comparison.of(workspace, "sensr", lambda *_: None)
    with pytest.raises(ParamsError, match=r"control is the control, which is always there"):
        run(workspace, {CONTROL: Component(use="kd", alpha=0.5, temperature=2.0)}, 1)
    with pytest.raises(ParamsError, match=r"close: hint learns from the teacher's features, which label does not keep"):
        run(workspace, {"close": Component(use="hint", weight=1.0)}, 1)
    assert not trained
    raw = yaml.safe_load((workspace / "params.yaml").read_text())
    stored = {"use": "checkpoint", "folder": "x", "sha256": "0" * 64, "tune": "nothing"}
    raw["targets"]["phone"]["student"]["model"] = stored
    (workspace / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(
        ParamsError, match=r"phone: student.model.tune is nothing, so nothing is taught; take all or norms"
    ):
        Comparison.of(workspace, "phone", lambda *_: None)
    raw["targets"]["phone"]["student"]["model"] = {"use": "teacher"}
    (workspace / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ParamsError, match=r"phone: its student is the teacher itself, which nothing teaches"):
        Comparison.of(workspace, "phone", lambda *_: None)
    (workspace / "labels/logits.npy").unlink()
    with pytest.raises(ParamsError, match=r"holds no soft labels. Next: dvc repro label"):
        Comparison.of(workspace, "sensor", lambda *_: None)
