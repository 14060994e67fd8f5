"""A student that starts from a stored one: what of it moves, what stays, how its head grows, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck import checkpoint, labels, models, quantization
from limbeck import plan as planning
from limbeck.checkpoint import Spec, digest_of
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources.digits import digits
from limbeck.data.sources.source import Source, in_memory
from limbeck.data.splits import read, read_meta
from limbeck.distillation import NORMS, begun, on_one_scale, spec_of, tune_
from limbeck.errors import CheckpointError, ParamsError
from limbeck.evaluation import accuracy
from limbeck.models.growing import is_more
from limbeck.params import DistillParams, Params, PruneParams, StudentParams, Tune, Unused, WarmStart
from limbeck.prediction import predict
from limbeck.pruning import cut_spec, prune_
from limbeck.teachers.outside import from_checkpoint
from stages import distill
from stages.__main__ import check_components
from tests.conftest import Remembering

RESNET = Component.model_validate({"use": "resnet", "width": 8, "depth": 8})


def stored(folder: Path, data: Path, tiny: Params, classes: tuple[str, ...] | None = None, **changes: Any) -> Path:
    """A cut student, as the prune stage would write it, its norms seasoned by the data; with its labels' folder beside."""
    meta = read_meta(data)
    spec = Spec(
        model=RESNET, shape=meta.shape, dtype=meta.dtype, classes=classes or meta.classes, mean=(40.0,), std=(50.0,)
    )
    torch.manual_seed(0)
    network = models.build(spec.model_copy(update=changes)).train()
    x, _ = read(data, "train")
    with torch.no_grad():
        network(torch.from_numpy(x[:256].copy()))
    spec = cut(network.eval(), spec.model_copy(update=changes), x, tiny)
    models.save(folder, spec, network)
    return folder


def cut(network: models.Network, spec: Spec, x: Any, tiny: Params) -> Spec:
    prune = tiny.targets["phone"].prune
    assert isinstance(prune, PruneParams)
    list(prune_(network, prune, torch.from_numpy(x[:1].copy())))
    return cut_spec(spec, network)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, data: Path, tiny: Params) -> Path:
    """A folder with `student`, stored and cut, and `labels`, made by itself."""
    folder = tmp_path_factory.mktemp("place")
    stored(folder / "student", data, tiny)
    labels.write(
        folder / "labels", data, models.load(folder / "student")[1], tiny.label, seed=0, teacher_digest="0" * 64,
        teacher_quality=0.1, progress=lambda *_: None,
    )  # fmt: skip
    return folder


def student(folder: Path, tiny: Params, tune: Tune = "all", sha256: str | None = None, **train: Any) -> StudentParams:
    model = WarmStart(use="checkpoint", folder=folder, sha256=sha256 or digest_of(folder), tune=tune)
    settings = tiny.targets["sensor"].student.train.model_copy(update={"epochs": 1, "warmup_epochs": 0.0, **train})
    return StudentParams(model=model, train=settings)


def distilled(
    place: Path, out: Path, data: Path, tiny: Params, tune: Tune, *, control: bool = False, **train: Any
) -> tuple[dict[str, Any], Remembering]:
    report: Any = Remembering(out / "scratch")
    figures = distill.run(
        data=data, labels=place / "labels", teacher=place / "student", out=out / "out", control=out / "control",
        student=student(place / "student", tiny, tune, **train),
        distill=DistillParams.model_validate({"use": "kd", "alpha": 0.5, "temperature": 2.0, "control": control}),
        bootstrap=100, bootstrap_seed=0, metric="accuracy", seed=0, report=report,
    )  # fmt: skip
    return figures, report


def test_what_is_frozen_stays_to_the_bit_without_decay_and_through_averaging(
    tmp_path: Path, place: Path, data: Path, tiny: Params
) -> None:
    distilled(place, tmp_path, data, tiny, "norms", weight_decay=0.1, ema_decay=0.9)
    before, after = (models.load(folder) for folder in (place / "student", tmp_path / "out"))
    assert after[0].cuts == before[0].cuts != {}
    assert after[0].mean == (40.0,), "its own normalization, not the data's"
    moved = {n for n, v in after[1].state_dict().items() if not torch.equal(v, before[1].state_dict()[n])}
    of_norms = {
        f"{name}.{key}"
        for name, module in after[1].named_modules() if isinstance(module, NORMS) for key in module.state_dict()
    }  # fmt: skip
    assert moved == of_norms | {"body.head.bias"}, "norms, their statistics, and biases"


def test_tuning_all_moves_every_weight_from_where_it_was(tmp_path: Path, place: Path, data: Path, tiny: Params) -> None:
    figures, report = distilled(place, tmp_path, data, tiny, "all", control=True)
    before, after, twin = (
        dict(models.load(folder)[1].named_parameters())
        for folder in (place / "student", tmp_path / "out", tmp_path / "control")
    )
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert {name: value.shape for name, value in twin.items()} == {name: value.shape for name, value in before.items()}
    assert figures["tuned"] == "all"
    assert figures["validation"] >= figures["validation_before"], "a start that knows nothing is soon left behind"
    assert {row["arm"] for row in report.rows} == {"student", "control"}
    assert "gain" in figures


def test_both_arms_start_from_the_same_stored_weights(place: Path, data: Path, tiny: Params) -> None:
    of_seeds = [begun(student(place / "student", tiny), data, seed)[1].state_dict() for seed in (0, 1)]
    assert all(torch.equal(value, of_seeds[1][name]) for name, value in of_seeds[0].items())


def test_a_student_of_which_nothing_is_tuned_is_the_same_checkpoint_evaluated(
    tmp_path: Path, place: Path, data: Path, tiny: Params
) -> None:
    figures, report = distilled(place, tmp_path, data, tiny, "nothing", control=True)
    assert digest_of(tmp_path / "out") == digest_of(place / "student")
    assert report.steps == []
    _, network = models.load(place / "student")
    x, y = read(data, "validation")
    assert figures["validation"] == float(accuracy(predict(network, x), y).mean())
    assert json.loads((tmp_path / "control/none.json").read_text()) == {"control": "nothing is trained"}
    assert report.rows == [{"epoch": 0, "arm": "student", "validation": figures["validation"]}]


def test_a_cut_student_is_cut_again_and_still_loads(tmp_path: Path, place: Path, data: Path, tiny: Params) -> None:
    spec, network = begun(student(place / "student", tiny), data, 0)
    x, _ = read(data, "validation")
    again = cut(network.eval(), spec, x, tiny)
    assert all(again.cuts[name].outputs <= cut.outputs for name, cut in spec.cuts.items())
    assert again.cuts != spec.cuts
    models.save(tmp_path / "m", again, network)
    assert np.array_equal(predict(models.load(tmp_path / "m")[1], x), predict(network, x))


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory, tiny: Params) -> Path:
    """The digits without the last two."""
    source, folder = digits(), tmp_path_factory.mktemp("eight") / "data"
    images = np.stack(list(source.train.samples()))
    known = source.train.labels < 8
    part = in_memory(images[known], source.train.labels[known])
    splits.write(folder, Source("eight", source.classes[:8], part), tiny.data.split, 0)
    return folder


@pytest.fixture(scope="module")
def of_eight(tmp_path_factory: pytest.TempPathFactory, eight: Path, tiny: Params) -> Path:
    return stored(tmp_path_factory.mktemp("of eight") / "student", eight, tiny)


def test_a_head_grows_behind_its_old_rows_which_stay_to_the_bit(of_eight: Path, data: Path, tiny: Params) -> None:
    old = models.load(of_eight)[1].state_dict()
    spec, network = begun(student(of_eight, tiny), data, 0)
    _, other = begun(student(of_eight, tiny), data, 1)
    assert spec.classes == read_meta(data).classes
    assert spec.cuts["head"].outputs == 10, "its head had been cut on its other side"
    for name, value in network.state_dict().items():
        assert torch.equal(value[:8] if "head" in name else value, old[name]), name
    drawn, drawn_otherwise = (net.body.get_submodule("head").weight[8:] for net in (network, other))
    assert not torch.equal(drawn, drawn_otherwise)
    assert torch.equal(begun(student(of_eight, tiny), data, 0)[1].body.get_submodule("head").weight[8:], drawn)


def test_old_answers_are_the_same_beside_new_ones(of_eight: Path, data: Path, tiny: Params) -> None:
    x, _ = read(data, "validation")
    _, network = begun(student(of_eight, tiny), data, 0)
    assert np.allclose(predict(network, x)[:, :8], predict(models.load(of_eight)[1], x), atol=1e-5)


def test_a_teachers_head_grows_alike(of_eight: Path, data: Path) -> None:
    brought = from_checkpoint(of_eight, read_meta(data), sha256=None, trust=(), adapts=True)
    old = models.load(of_eight)[1].state_dict()
    for name, value in brought.network.state_dict().items():
        assert torch.equal(value[:8] if "head" in name else value, old[name]), name


@given(st.permutations("abcdef"), st.integers(0, 6))
def test_more_classes_are_the_known_ones_first_and_others_behind(order: list[str], num: int) -> None:
    classes = tuple(order)
    assert is_more(classes, classes[:num]) == (num < len(classes))
    assert not is_more(classes[:num], classes)


def altered(folder: Path, out: Path, **changes: Any) -> Path:
    spec, state = checkpoint.read(folder)
    checkpoint.save(out, spec.model_copy(update=changes), state)
    return out


def test_a_stored_student_that_does_not_fit_is_refused_with_what_would(
    tmp_path: Path, place: Path, of_eight: Path, data: Path, eight: Path, tiny: Params
) -> None:
    folder = place / "student"
    classes = read_meta(data).classes
    swapped = altered(folder, tmp_path / "swapped", classes=(classes[1], classes[0], *classes[2:]))
    wide = altered(folder, tmp_path / "wide", shape=(9, 9, 1))
    int8 = quantization.describe("static", "u8s7", Component(use="mse"))
    quantized = altered(folder, tmp_path / "int8", quantization=int8)

    def refused(folder: Path, match: str, data: Path = data, **settings: Any) -> None:
        with pytest.raises(CheckpointError, match=match):
            begun(student(folder, tiny, **settings), data, 0)

    refused(tmp_path / "absent", r"student.model.folder: .*absent is missing; write a whole path", sha256="0" * 64)
    refused(folder, r"has sha256 .*, expected 00.*write the new digest into student.model.sha256", sha256="0" * 64)
    refused(wide, r"takes uint8 samples of shape \(9, 9, 1\), the data are uint8 of \(8, 8, 1\); expected a student of")
    refused(quantized, r"is quantized; a student goes on learning in float. Take what prune or distill wrote")
    refused(swapped, r"the known classes in another order. Expected them first, as they were")
    refused(folder, r"without 8, 9. Expected the known classes and new ones behind them", data=eight)
    refused(of_eight, r"does not know 8, 9, whose rows .*tune: norms would leave them so. Take tune: all", tune="norms")
    refused(of_eight, r"tune: nothing would leave them so", tune="nothing")


def test_a_network_without_norms_and_biases_cannot_be_tuned_by_them() -> None:
    network = models.Network(torch.nn.Identity(), torch.nn.Linear(2, 2, bias=False))  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"neither norms nor biases; take student.model.tune: all"):
        tune_(network, "norms")


def test_params_know_a_stored_student_and_the_runner_looks_for_no_builder(tiny: Params) -> None:
    raw = tiny.model_dump(mode="json")
    model = {"use": "checkpoint", "folder": "x", "sha256": "0" * 64, "tune": "norms"}
    raw["targets"]["phone"]["student"]["model"] = model
    params = Params.model_validate(raw)
    warm = params.targets["phone"].student.warm
    assert warm is not None
    assert warm.tune == "norms"
    assert params.model_dump(mode="json")["targets"]["phone"]["student"]["model"] == model
    assert tiny.targets["phone"].student.warm is None
    check_components(params, lambda _: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tune": "some"}, r"student.model.tune: Input should be 'all', 'norms' or 'nothing' \(found 'some'\)"),
        ({"sha256": None}, r"student.model.sha256: "),
        ({"foldr": "y"}, r"student.model.foldr: unknown key; did you mean 'folder'\?"),
    ],
)
def test_a_misspelled_stored_student_is_named(tiny: Params, change: dict[str, Any], message: str) -> None:
    from limbeck.params import checked

    raw = tiny.model_dump(mode="json")
    model = {"use": "checkpoint", "folder": "x", "sha256": "0" * 64, "tune": "norms", **change}
    raw["targets"]["phone"]["student"]["model"] = model
    with pytest.raises(ParamsError, match=message):
        checked(raw, "params.yaml")


def test_a_plan_measures_the_stored_student_with_its_cuts(
    tmp_path: Path, place: Path, data: Path, tiny: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "data"
    shutil.copytree(data, there)
    shutil.copytree(place / "student", tmp_path / "champion")
    target = tiny.targets["phone"].model_copy(
        update={
            "student": student(place / "student", tiny).model_copy(
                update={"model": WarmStart(
                    use="checkpoint", folder=Path("champion"), sha256=digest_of(place / "student"), tune="all"
                )}
            ),
            "quantize": Unused(use="none"), "prune": Unused(use="none"),
            "device": Component.model_validate({"use": "tests.test_plan:by_size"}),
        }
    )  # fmt: skip
    monkeypatch.setattr(planning, "to_onnx", lambda path, *_: path.write_bytes(b"x"))
    params = tiny.model_copy(update={"targets": {"phone": target}})
    (made,) = planning.plan(params, there, ["phone"], lambda _: None)
    assert made.files["model.fp32"].num_params == models.num_params(models.load(place / "student")[1])


@given(st.lists(st.lists(st.integers(0, 255), min_size=4, max_size=4), min_size=1, max_size=4))
def test_channels_on_one_scale_have_one_whole_mean_and_the_spread_of_all_pixels_about_it(
    values: list[list[int]],
) -> None:
    x_CN = np.array(values, dtype=np.float64)
    mean, std = on_one_scale(tuple(x_CN.mean(1).tolist()), tuple(x_CN.std(1).tolist()))
    assert set(mean) == {round(x_CN.mean())}
    assert len(mean) == len(std) == len(x_CN)
    np.testing.assert_allclose(std, ((x_CN - mean[0]) ** 2).mean() ** 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "mean"),
    [
        ((4, 4, 3), "uint8", (119.0, 119.0, 119.0)),
        ((4, 4, 3), "float32", (120.4, 118.2, 117.5)),
        ((9, 3), "int16", (120.4, 118.2, 117.5)),
        ((3,), "float32", (120.4, 118.2, 117.5)),
    ],
)
def test_only_images_of_bytes_are_put_on_one_scale(
    data: Path, small: Component, shape: tuple[int, ...], dtype: str, mean: tuple[float, ...]
) -> None:
    given = {"shape": shape, "dtype": dtype, "mean": (120.4, 118.2, 117.5), "std": (60.0, 60.0, 60.0)}
    spec = spec_of(small, read_meta(data).model_copy(update=given))
    assert (spec.mean, len(set(spec.std))) == (mean, 1)
    assert (spec.std == given["std"]) == (mean == given["mean"])
