"""Pixels about one whole mean are int8 as they come: the file has no arithmetic before its first layer."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from limbeck import export, models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.prediction import predict

NORMALIZING = {"Cast", "Sub", "Mul"}
MATRICES = {"use": "mlp", "width": 8, "depth": 1}
WHOLE = Spec(
    model=Component.model_validate(MATRICES), shape=(6, 6, 2), dtype="uint8", classes=("a", "b", "c"),
    mean=(120.0,) * 2, std=(60.0,) * 2,
)  # fmt: skip


def exported(path: Path, spec: Spec, x: NDArray[np.uint8], arithmetic: str = "u8s8", observer: str = "mse") -> set[str]:
    """Quantize and write an untrained network, compare its answers; the operators of the file."""
    torch.manual_seed(0)
    network = models.build(spec).eval()
    described = quantization.describe("static", arithmetic, Component.model_validate({"use": observer}))
    prepared = quantization.prepare(network, described, spec.shape, torch.uint8)
    quantization.calibrate_(prepared, x, 16)
    converted = quantization.convert(prepared)
    export.to_onnx(path, converted, spec, 18, {})
    export.check_parity(path, converted, x, max_difference=0.03, min_equal=0.9)
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize(
    ("model", "arithmetic", "observer"),
    [
        ({"use": "lean_resnet", "width": [4, 4], "depth": [0, 1]}, "u8s8", "mse"),
        (MATRICES, "u8s8", "min_max"),
        (MATRICES, "u8s7", "mse"),
    ],
)
def test_of_one_whole_mean_the_first_layer_takes_the_pixels(
    tmp_path: Path, x: NDArray[np.uint8], model: dict[str, object], arithmetic: str, observer: str
) -> None:
    given = WHOLE.model_copy(update={"model": Component.model_validate(model)})
    assert not exported(tmp_path / "q.onnx", given, x, arithmetic, observer) & NORMALIZING


@pytest.mark.parametrize(
    ("changes", "arithmetic"),
    [
        ({"mean": (120.0, 121.0)}, "u8s8"),
        ({"mean": (120.5, 120.5)}, "u8s8"),
        ({"std": (60.0, 61.0)}, "u8s8"),
        ({"mean": (300.0, 300.0)}, "u8s8"),
        ({"size": 8}, "u8s8"),
        ({}, "s8s8"),
    ],
)
def test_otherwise_pixels_are_normalized_in_float(
    tmp_path: Path, x: NDArray[np.uint8], changes: dict[str, object], arithmetic: str
) -> None:
    assert exported(tmp_path / "q.onnx", WHOLE.model_copy(update=changes), x, arithmetic) >= NORMALIZING


def test_grey_pixels_made_into_three_channels_are_normalized_in_float(tmp_path: Path, spec: Spec) -> None:
    """As for a teacher of photographs: three means for one channel."""
    x = np.random.default_rng(0).integers(0, 256, (32, 6, 6, 1), dtype=np.uint8)
    given = spec.model_copy(update={"shape": (6, 6, 1), "mean": (0.0,) * 3, "std": (255.0,) * 3})
    assert exported(tmp_path / "q.onnx", given, x, observer="min_max") >= NORMALIZING


def test_a_trained_int8_checkpoint_of_such_pixels_loads_to_the_same_answers(
    tmp_path: Path, x: NDArray[np.uint8]
) -> None:
    torch.manual_seed(0)
    network = models.build(WHOLE).eval()
    described = quantization.describe("static", "u8s8", Component.model_validate({"use": "min_max"}), trained=True)
    prepared = quantization.prepare(network, described, WHOLE.shape, torch.uint8)
    quantization.calibrate_(prepared, x, 16)
    quantization.save(tmp_path / "q", WHOLE.model_copy(update={"quantization": described}), prepared)
    _, loaded = quantization.load(tmp_path / "q")
    np.testing.assert_array_equal(predict(loaded, x), predict(quantization.convert(prepared), x))
