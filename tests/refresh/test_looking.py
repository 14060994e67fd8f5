"""A look at new windows with networks, files and prepared data as a refresh has them; nothing here was trained."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from limbeck import models
from limbeck.atomic import write_json
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources.windows import windows
from limbeck.data.splits import read, read_meta
from limbeck.data.window import UNLABELLED, About, Counts, seal, write_about
from limbeck.edge.usage import softmax
from limbeck.params import ContractParams, SplitParams
from limbeck.prediction import predict
from limbeck.refresh import looking
from limbeck.refresh import rules as rules_file
from limbeck.refresh.looking import Look
from limbeck.refresh.rules import Rules
from limbeck.refresh.rungs import Champion, Stored
from tests.conftest import ROOT
from tests.tracking.conftest import write_export

COSTS = {"bytes": 1, "p95_ms": 1.0, "peak_memory_mb": 1.0}
LATENCY = {"variants": {"student": COSTS, "model.fp32": COSTS}}
QUALITY = {"variants": {"model.fp32": {"validation": {"value": 0.9, "drop": {"value": 0.0}}}}}

CONTRACT = ContractParams.model_validate(
    {
        "max_drop": 0.5, "min_quality": None, "max_size_kb": 100, "max_p95_ms": 10.0, "max_peak_memory_mb": 64,
        "max_slowdown": 1.0, "require": "kept",
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def rules() -> Rules:
    found = rules_file.load(ROOT / "refresh.yaml")
    drift = found.drift.model_copy(update={"permutations": 1999, "max_samples": 300, "max_pairs": 100})
    return found.model_copy(update={"drift": drift, "gate": found.gate.model_copy(update={"bootstrap": 50})})


@pytest.fixture(scope="module")
def champion(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Champion:
    """Of digits; a workspace lies around it."""
    place, meta = tmp_path_factory.mktemp("champion"), read_meta(data)
    torch.manual_seed(0)
    stored = {}
    for name in ("teacher", "student"):
        spec = Spec(
            model=Component.model_validate({"use": "convnet", "width": 4, "depth": 1}), shape=meta.shape, dtype=meta.dtype,
            classes=meta.classes, mean=meta.mean, std=meta.std,
        )  # fmt: skip
        models.save(place / name, spec, models.build(spec))
        stored[name] = Stored.of(place / name)
    write_export(place / "export/phone", 1.0, classes=10, height=8, width=8)
    for name, figures in (("quality", QUALITY), ("latency", LATENCY)):
        (place / "metrics/phone").mkdir(parents=True, exist_ok=True)
        write_json(place / f"metrics/phone/{name}.json", figures)
    return Champion(stored["student"], stored["student"], stored["teacher"], data, meta.digest)


def window(folder: Path, x: NDArray[Any], y: NDArray[Any], classes: tuple[str, ...], origin: Any = "drop") -> Path:
    folder.mkdir(parents=True)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", np.asarray(y, np.int64))
    known = int((np.asarray(y) != UNLABELLED).sum())
    counts = Counts(
        labelled=known, unlabelled=len(y) - known, by_people=known, repeated=0, broken=0, not_finite=0, out_of_range=0
    )
    write_about(
        folder,
        About(
            name=folder.name, origin=origin, arrived=datetime(2026, 11, 21, tzinfo=UTC), classes=classes, counts=counts,
            labelled_by="people", teacher=None, replaces=None, source="", notes=(), **seal(folder.iterdir(), classes),
        ),
    )  # fmt: skip
    return folder


def look(
    champion: Champion, rules: Rules, *folders: Path, act: Any = "moved", new_classes: tuple[str, ...] = ()
) -> Look:
    return looking.look(
        champion.student.folder.parent, "phone", champion, folders, rules, variant="model.fp32", contract=CONTRACT,
        now=datetime(2026, 11, 22, tzinfo=UTC), last_action=None, act=act,
        new_classes=new_classes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def still(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, y = read(data, "test")
    return window(tmp_path_factory.mktemp("w") / "still", np.asarray(x), np.asarray(y), read_meta(data).classes)


def failed(champion: Champion, x: NDArray[Any]) -> NDArray[np.int64]:
    """Labels with which it is always wrong."""
    _, student = models.load(champion.student.folder)
    return np.asarray((predict(student, x).argmax(1) + 1) % 10)


@pytest.fixture(scope="module")
def dark(champion: Champion, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = 255 - np.asarray(read(data, "test")[0])
    return window(tmp_path_factory.mktemp("w") / "dark", x, failed(champion, x), read_meta(data).classes)


def test_it_acts_on_what_moved_and_settles_the_rest(champion: Champion, rules: Rules, still: Path, dark: Path) -> None:
    found = look(champion, rules, still, dark)
    assert found.report.fires
    assert (found.acts, found.settled) == ((dark,), [still])
    assert found.num_known == rules.drift.max_samples
    assert [line.split(":")[0] for line in found.lines()][:2] == ["still", "dark"]
    assert look(champion, rules, still, dark, act="all").acts == (still, dark)


def test_where_nothing_moved_the_figures_are_of_all(champion: Champion, rules: Rules, still: Path) -> None:
    found = look(champion, rules, still)
    assert (found.calls_for_nothing, found.acts, found.settled) == ("", (), [still])
    assert found.feedback.fell == look(champion, rules, still, act="all").feedback.fell


def test_labels_are_told_apart_by_name_and_a_class_it_never_met_is_no_mistake_of_the_champion(
    champion: Champion, rules: Rules, data: Path, tmp_path: Path
) -> None:
    """Classes of a window stand in the order of the day on which it came."""
    x, y = (np.asarray(array) for array in read(data, "test"))
    classes = read_meta(data).classes
    turned = window(tmp_path / "turned", x, len(classes) - 1 - y, classes[::-1])
    as_ever = window(tmp_path / "as ever", x, y, classes)
    assert look(champion, rules, turned).feedback == look(champion, rules, as_ever).feedback
    new = window(tmp_path / "new", x, np.where(y == 3, len(classes), y), (*classes, "newt"))
    found = look(champion, rules, new)
    assert (found.report.reason, found.settled, found.waiting) == ("nothing moved", [], (new,)), (
        "they may become enough"
    )
    assert found.num_known < rules.drift.max_samples
    asked = look(champion, rules, new, act="wanted", new_classes=("newt",))
    assert (asked.unready, asked.num_known) == ((), rules.drift.max_samples), "what it is to learn, it is wrong in"
    assert asked.num_labelled == len(y)
    assert look(champion, rules, new, act="all").unready == ("newt",)
    assert look(champion, rules, window(tmp_path / "none", x, y, (*classes, "newt"))).waiting == ()


def test_a_handful_of_labels_decides_about_no_rung(
    champion: Champion, rules: Rules, data: Path, tmp_path: Path
) -> None:
    x, y = (np.asarray(array) for array in read(data, "test"))
    few = np.where(np.arange(len(y)) < rules.drift.min_samples - 1, y, UNLABELLED)
    known = look(champion, rules, window(tmp_path / "few", x, few, read_meta(data).classes)).feedback
    assert (known.fell, known.teacher_lead, known.stale, known.float_lead, known.norms_lead) == (
        None,
        None,
        "",
        None,
        None,
    )


def test_a_world_that_was_learned_is_known(
    champion: Champion, rules: Rules, data: Path, dark: Path, tmp_path: Path
) -> None:
    x = 255 - np.asarray(read(data, "train")[0])
    learned = window(tmp_path / "noon", x, failed(champion, x), read_meta(data).classes)
    source = windows(base=str(data), folders=[str(learned)], replay=0.25)
    splits.write(tmp_path / "data", source, SplitParams(test=0.3, validation=0.3, calibration=0.05), 0)
    later = replace(champion, data=tmp_path / "data", data_digest=read_meta(tmp_path / "data").digest)
    more = rules.model_copy(update={"drift": rules.drift.model_copy(update={"max_samples": 2000})})
    assert look(champion, more, dark).report.fires
    found = look(later, more, dark)
    assert found.report.reason == "nothing moved since noon, which was learned"
    assert found.settled == [dark]


def test_uploads_are_held_against_samples_of_which_the_champion_was_not_sure_either(
    champion: Champion, rules: Rules, data: Path, tmp_path: Path
) -> None:
    _, student = models.load(champion.student.folder)
    x = np.asarray(read(data, "train")[0])
    confidence = softmax(predict(student, x)).max(1)
    unsure = x[confidence < np.quantile(confidence, 0.7)]
    names, nobody = read_meta(data).classes, np.full(len(unsure), UNLABELLED)
    more = rules.model_copy(update={"drift": rules.drift.model_copy(update={"max_samples": 2000})})
    assert look(champion, more, window(tmp_path / "drop", unsure, nobody, names)).report.sources
    uploaded = look(champion, more, window(tmp_path / "uploads", unsure, nobody, names, origin="feedback"))
    assert uploaded.report.reason == "nothing moved"


def test_uploads_never_end_a_look_however_sure_the_champion_is(
    champion: Champion, rules: Rules, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = (np.asarray(array) for array in read(data, "test"))
    uploads = window(tmp_path / "uploads", x, y, read_meta(data).classes, origin="feedback")
    monkeypatch.setattr(looking, "softmax", lambda logits: np.full((len(logits), 10), 1.0))
    found = look(champion, rules, uploads)
    assert found.report.reason.startswith("no judgement: the reference has 0 samples")
    assert found.settled == []


def test_one_window_where_nothing_was_lost_settles_no_other(
    champion: Champion, rules: Rules, data: Path, dark: Path, tmp_path: Path
) -> None:
    """Labelled as the champion answers: it is always right there."""
    x, _ = (np.asarray(array) for array in read(data, "train"))
    _, student = models.load(champion.student.folder)
    names, dim = read_meta(data).classes, 255 - x
    right = window(tmp_path / "right", dim, predict(student, dim).argmax(1), names)
    nobody = window(tmp_path / "nobody", dim[:300], np.full(300, UNLABELLED), names)
    alone = look(champion, rules, right)
    assert alone.calls_for_nothing == (
        ", but where people labelled enough to tell (300 samples) the champion is as good as before"
    )
    assert alone.settled == [right]
    both = look(champion, rules, right, nobody)
    assert (both.acts, both.settled, both.calls_for_nothing) == ((nobody,), [right], None)


def test_labels_that_came_late_for_what_was_learned_count_for_new_samples_alone(
    champion: Champion, rules: Rules, data: Path, tmp_path: Path
) -> None:
    x, y = (np.asarray(array) for array in read(data, "train"))
    older = window(tmp_path / "older", x, y, read_meta(data).classes)
    assert len(looking.unknown_rows(older, data)) == len(y), "the intake has seen to that"
    about = looking.read_window(older).about
    write_about(older, about.model_copy(update={"replaces": "d"}))
    assert len(looking.unknown_rows(older, data)) == 0


def test_of_a_window_that_was_learned_what_was_left_out_is_new(data: Path, tmp_path: Path) -> None:
    x, _ = (np.asarray(array) for array in read(data, "test"))
    noon = window(tmp_path / "noon", 255 - x[:200], np.arange(200) % 2, (*read_meta(data).classes[:1], "newt"))
    source = windows(base=str(data), folders=[str(noon)], replay=0.25, leave_out=["newt"])
    splits.write(tmp_path / "data", source, SplitParams(test=0.3, validation=0.3, calibration=0.05), 0)
    assert (looking.unknown_rows(noon, tmp_path / "data") % 2 == 1).all()
    assert len(looking.unknown_rows(noon, tmp_path / "data")) == 100
