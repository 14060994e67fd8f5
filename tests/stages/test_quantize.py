"""The quantize stage on its last rung, where calibration alone does not keep the contract."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck import labels, models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.splits import read, read_meta
from limbeck.params import Params, QuantizeParams, Unused
from stages import quantize
from tests.conftest import Killed, KilledAt, Remembering


class Forgetful(nn.Module):
    """A hidden layer that training forgets a part of."""

    def __init__(self, num_classes: int, inputs: int) -> None:
        super().__init__()
        self.hidden, self.drop, self.head = nn.Linear(inputs, 32), nn.Dropout(0.3), nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, K]."""
        return self.head(self.drop(torch.relu(self.hidden(x.flatten(1)))))  # type: ignore[no-any-return]


def forgetful(shape: tuple[int, ...], num_classes: int) -> Forgetful:
    """One of its kind."""
    return Forgetful(num_classes, math.prod(shape))


def stored(folder: Path, data: Path, tiny: Params, **model: Any) -> Path:
    """A folder with `pruned`, a network as it was drawn, and `labels`, for their views alone."""
    meta = read_meta(data)
    spec = Spec(
        model=Component.model_validate(model), shape=meta.shape, dtype=meta.dtype, classes=meta.classes, mean=(40.0,),
        std=(50.0,),
    )  # fmt: skip
    torch.manual_seed(0)
    network = models.build(spec)
    models.save(folder / "pruned", spec, network)
    labels.write(
        folder / "labels", data, network, tiny.label, seed=0, teacher_digest="0" * 64, teacher_quality=1.0,
        progress=lambda *_: None,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: Path, tiny: Params) -> Path:
    return stored(tmp_path_factory.mktemp("made"), data, tiny, use="convnet", width=8, depth=2)


def quantized(data: Path, made: Path, tiny: Params, out: Path, report: Remembering, bits: int = 8) -> dict[str, Any]:
    target = tiny.targets["sensor"]
    told: Any = report
    settings = {**target.quantize.model_dump(), "max_float_layers": 0, "qat": {"epochs": 3, "lr": 0.1}}
    return quantize.run(
        data=data, labels=made / "labels", pruned=made / "pruned", out=out, distill=Unused(use="none"),
        quantize=QuantizeParams.model_validate({**settings, "weight_bits": bits}),
        train=target.student.train, instructions="any", max_drop=None, min_quality=1.0, metric="accuracy", seed=0,
        report=told,
    )  # fmt: skip


@pytest.mark.parametrize("bits", [8, 4])
def test_it_trains_as_int8_where_calibration_is_not_enough(
    tmp_path: Path, data: Path, made: Path, tiny: Params, report: Remembering, bits: int
) -> None:
    figures = quantized(data, made, tiny, tmp_path / "out", report, bits=bits)
    assert list(figures["rungs"])[-1] == figures["rung"] == "qat"
    assert figures["validation"] > figures["float_validation"] + 0.2, "it learned"
    assert [row["epoch"] for row in report.rows if row["arm"] == "qat"] == [0, 1, 2]
    spec, network = quantization.load(tmp_path / "out")
    assert spec.quantization is not None
    assert (spec.quantization.trained, spec.quantization.weight_bits) == (True, bits)
    x, labels_N = read(data, "validation")
    with torch.no_grad():
        answers_N = network(torch.from_numpy(np.array(x))).argmax(1).numpy()
    assert (answers_N == labels_N).mean() == figures["validation"]


def test_a_kill_while_it_trains_ends_in_the_same_bytes(
    tmp_path: Path, data: Path, tiny: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limbeck.training.CHECKPOINT_EVERY_S", 0.0)  # keep the state at every step
    made = stored(tmp_path, data, tiny, use=f"{__name__}:forgetful")
    straight = Remembering(tmp_path / "straight")
    quantized(data, made, tiny, tmp_path / "out", straight)
    killed_at = max(straight.steps) - 5
    with pytest.raises(Killed):
        quantized(data, made, tiny, tmp_path / "again", KilledAt(tmp_path / "killed", killed_at))
    resumed = Remembering(tmp_path / "killed")
    quantized(data, made, tiny, tmp_path / "again", resumed)
    assert resumed.steps[0] >= killed_at - 1, "it went on from the state, not from the start"
    assert resumed.rows == straight.rows
    for name in ("model.json", "weights.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
