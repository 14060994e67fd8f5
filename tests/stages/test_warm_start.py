"""A rung of the ladder from a stored champion to exported files, stage by stage."""

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck import labels, models, quantization
from limbeck.checkpoint import Spec, digest_of
from limbeck.components import Component
from limbeck.data.splits import read, read_meta
from limbeck.edge import manifest
from limbeck.export import check_parity, to_onnx
from limbeck.params import Params, PruneParams, checked
from limbeck.pruning import cut_spec, prune_
from limbeck.refresh.rungs import Champion, Feedback, LadderRules, Rung, Situation, params_of
from stages import distill, export, prune, quantize
from tests.conftest import TINY, Remembering
from tests.refresh.conftest import values_in


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, data: Path, tiny: Params) -> Path:
    """A champion's workspace: teacher and student are one small network, which prune cut, and its soft labels."""
    folder, meta = tmp_path_factory.mktemp("champion"), read_meta(data)
    (folder / "data").symlink_to(data)
    (folder / "params.yaml").write_bytes(TINY.read_bytes())
    spec = Spec(
        model=Component.model_validate({"use": "mlp", "width": 16, "depth": 1}), shape=meta.shape, dtype=meta.dtype,
        classes=meta.classes, mean=(40.0,), std=(50.0,),
    )  # fmt: skip
    torch.manual_seed(0)
    network = models.build(spec).eval()
    for place in ("teacher", "sensor/distill"):
        models.save(folder / "models" / place, spec, network)
    labels.write(
        folder / "labels", data, network, tiny.label, seed=0, teacher_digest="0" * 64, teacher_quality=0.1,
        progress=lambda *_: None,
    )  # fmt: skip
    cut = tiny.targets["sensor"].prune
    assert isinstance(cut, PruneParams)
    list(prune_(network, cut, torch.from_numpy(read(data, "train")[0][:1].copy())))
    models.save(folder / "models/sensor/prune", cut_spec(spec, network), network)
    return folder


def climb(rung: Rung, feedback: Feedback, workspace: Path, tiny: Params, out: Path) -> dict[str, dict[str, Any]]:
    """Run what follows from a rung's params in their folders below `out`; their figures."""
    rules = LadderRules.model_validate(values_in(LadderRules.__doc__, "ladder"))
    base = tiny.model_dump(mode="json")
    base["targets"]["sensor"]["quantize"]["max_float_layers"] = 0
    base["targets"]["sensor"]["contract"]["max_drop"] = 1.0
    situation = Situation(base, "sensor", Champion.of(workspace, "sensor"), (), rules, feedback)
    target = checked(params_of(rung, situation), rung).targets["sensor"]
    report: Any = Remembering(out / "scratch")
    data, taught = workspace / "data", workspace / "labels"
    own = {"distill": target.distill, "metric": "accuracy", "seed": 0, "report": report}
    figures = {
        "distill": distill.run(
            data=data, labels=taught, teacher=workspace / "models/teacher", out=out / "distill", control=out / "control",
            student=target.student, bootstrap=100, bootstrap_seed=0, **own,
        ),
        "prune": prune.run(
            data=data, labels=taught, student=out / "distill", out=out / "prune", prune=target.prune,
            train=target.student.train, device=target.device, threads=1, instructions="any", benchmark=target.benchmark,
            **own,
        ),
    }  # fmt: skip
    if rung == "recalibrate":
        return figures
    figures["quantize"] = quantize.run(
        data=data, labels=taught, pruned=out / "prune", out=out / "quantize", quantize=target.quantize,
        train=target.student.train, instructions="any", max_drop=target.contract.max_drop, min_quality=None, **own,
    )  # fmt: skip
    return figures


@pytest.fixture(scope="module")
def climbed(
    tmp_path_factory: pytest.TempPathFactory, workspace: Path, tiny: Params
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """What a short distillation left, in folders by stage, and its figures."""
    out = tmp_path_factory.mktemp("climbed")
    return out, climb("distil", Feedback(quality_room=0.5), workspace, tiny, out)


def test_a_champion_learns_on_is_cut_further_quantized_and_exported(
    tmp_path: Path, climbed: tuple[Path, dict[str, dict[str, Any]]], workspace: Path
) -> None:
    out, figures = climbed
    assert figures["distill"]["validation"] > figures["distill"]["validation_before"]
    assert figures["prune"]["macs_kept"] < 1
    widths = [
        models.load(place)[0].cuts["layers.0"].outputs for place in (workspace / "models/sensor/prune", out / "prune")
    ]
    assert widths == [12, 10], "cut again"
    assert list(figures["quantize"]["rungs"]) == ["static_mse"]
    spec, network = quantization.load(out / "quantize")
    x, _ = read(workspace / "data", "validation")
    to_onnx(tmp_path / "int8.onnx", network, spec, 18, {})
    check_parity(tmp_path / "int8.onnx", network, x, max_difference=None, min_equal=0.95)


@pytest.mark.slow  # four files
def test_it_passes_the_export_stage_beside_its_teacher(
    tmp_path: Path, climbed: tuple[Path, dict[str, dict[str, Any]]], workspace: Path, tiny: Params, report: Remembering
) -> None:
    out, _ = climbed
    told: Any = report
    export.run(
        data=workspace / "data", teacher=workspace / "models/teacher", student=out / "distill", pruned=out / "prune",
        quantized=out / "quantize", out=tmp_path / "export", export=tiny.targets["sensor"].export, name="tiny",
        target="sensor", report=told,
    )  # fmt: skip
    assert set(manifest.read(tmp_path / "export")["files"]) >= {"model.fp32.onnx", "model.int8.onnx"}


def test_recalibrating_passes_the_champion_on_to_the_quantizer(tmp_path: Path, workspace: Path, tiny: Params) -> None:
    climb("recalibrate", Feedback(), workspace, tiny, tmp_path)
    for place in ("distill", "prune"):
        assert digest_of(tmp_path / place) == digest_of(workspace / "models/sensor/prune")
