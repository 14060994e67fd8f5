"""Weights of 4 bits: sixteen values for each output channel, half the bytes, multiplied as bytes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import nn
from torch.nn import functional

from limbeck import export, models, quantization
from limbeck.checkpoint import Quantization, Spec
from limbeck.components import Component
from limbeck.errors import ParamsError
from limbeck.prediction import predict
from limbeck.quantization.tables import Bits
from tests.test_compression import samples, seasoned, spec_of
from tests.test_zoo import operators_run

RESNET = spec_of(Component(use="resnet", width=16, depth=8))
MLP = Spec(
    model=Component.model_validate({"use": "mlp", "width": 8, "depth": 1}), shape=(5,), dtype="float32",
    classes=("a", "b", "c"), mean=(0.0,) * 5, std=(1.0,) * 5,
)  # fmt: skip
OUTER = {(64, 12, 3, 3), (3, 64)}
"""Shapes of the first layer's weights, on blocks of 4 pixels, and of the last one's."""


def described(bits: Bits, *, trained: bool = False) -> Quantization:
    return quantization.describe("static", "u8s8", Component(use="mse"), trained=trained, weight_bits=bits)


def calibrated(how: Quantization, spec: Spec = RESNET) -> nn.Module:
    prepared = quantization.prepare(seasoned(spec), how, spec.shape, torch.uint8)
    quantization.calibrate_(prepared, samples(), 8)
    return prepared


def weights_in(file: Path) -> list[tuple[tuple[int, ...], NDArray[np.generic]]]:
    """What ONNX Runtime multiplies, once it has opened a file: shapes and tensors."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(file.with_suffix(".opened"))
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    tensors = onnx.load(file.with_suffix(".opened")).graph.initializer
    return [(tuple(t.dims), onnx.numpy_helper.to_array(t)) for t in tensors if t.data_type == TensorProto.INT8]


@pytest.mark.parametrize("opset", [18, pytest.param(21, marks=pytest.mark.slow)])
def test_half_the_bytes_are_the_same_operators_and_answer_as_the_model(opset: int, tmp_path: Path) -> None:
    files = {}
    for bits in (8, 4):
        how: Quantization = described(bits)  # type: ignore[arg-type]
        converted = quantization.convert(calibrated(how))
        files[bits] = tmp_path / f"{bits}.onnx"
        export.to_onnx(files[bits], converted, RESNET, opset, {})
        export.check_parity(files[bits], converted, samples(), max_difference=None, min_equal=0.9)
    weights = sum(tensor.size for shape, tensor in weights_in(files[8]) if len(shape) == 4 and shape not in OUTER)
    saved = files[8].stat().st_size - files[4].stat().st_size
    assert 0.45 * weights < saved < 0.52 * weights
    assert operators_run(files[4]) == operators_run(files[8])


def test_linear_layers_are_unpacked_too(tmp_path: Path) -> None:
    spec = MLP.model_copy(update={"model": Component.model_validate({"use": "mlp", "width": 64, "depth": 3})})
    x = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
    for bits in (8, 4):
        how: Quantization = described(bits)  # type: ignore[arg-type]
        prepared = quantization.prepare(models.build(spec).eval(), how, spec.shape, torch.float32)
        quantization.calibrate_(prepared, x, 8)
        converted = quantization.convert(prepared)
        export.to_onnx(tmp_path / f"{bits}.onnx", converted, spec, 21, {})
        export.check_parity(tmp_path / f"{bits}.onnx", converted, x, max_difference=None, min_equal=0.9)
    sizes = {bits: (tmp_path / f"{bits}.onnx").stat().st_size for bits in (8, 4)}
    assert sizes[8] - sizes[4] > 0.4 * 2 * 64 * 64, "both inner layers"
    assert operators_run(tmp_path / "4.onnx") == operators_run(tmp_path / "8.onnx")


def test_the_first_layer_and_the_last_keep_eight_bits(tmp_path: Path) -> None:
    export.to_onnx(tmp_path / "4.onnx", quantization.convert(calibrated(described(4))), RESNET, 21, {})
    found = weights_in(tmp_path / "4.onnx")
    inner = [tensor for shape, tensor in found if len(shape) > 1 and shape not in OUTER]
    assert len(inner) == 8
    assert all(np.abs(tensor).max() <= 8 for tensor in inner)
    assert all(np.abs(tensor).max() > 100 for shape, tensor in found if shape in OUTER)


def test_a_channel_of_zeros_is_its_bias(tmp_path: Path) -> None:
    """ONNX Runtime keeps a bias in 32 bits, in steps of the weights times the activations': too small ones overflow."""
    network = seasoned(RESNET)
    conv, norm = (network.body.get_submodule(f"blocks.0.{name}") for name in ("conv1", "norm1"))
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight[0], norm.bias[0] = 0.0, 3.0
    prepared = quantization.prepare(network, described(4), RESNET.shape, torch.uint8)
    quantization.calibrate_(prepared, samples(), 8)
    converted = quantization.convert(prepared)
    export.to_onnx(tmp_path / "4.onnx", converted, RESNET, 21, {})
    export.check_parity(tmp_path / "4.onnx", converted, samples(), max_difference=0.05, min_equal=0.9)


def test_a_network_trained_in_four_bits_comes_back_to_the_bit(tmp_path: Path) -> None:
    x, how = samples(), described(4, trained=True)
    prepared = quantization.prepare(seasoned(RESNET), how, RESNET.shape, torch.uint8)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.05)
    prepared.train()
    labels, losses = torch.arange(len(x)) % 3, []
    for _ in range(8):
        losses.append(functional.cross_entropy(prepared(torch.from_numpy(x)), labels))
        optimizer.zero_grad()
        losses[-1].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < losses[0], "it learns through the rounding"
    quantization.save(tmp_path / "q", RESNET.model_copy(update={"quantization": how}), prepared)
    _, loaded = quantization.load(tmp_path / "q")
    assert np.array_equal(predict(loaded, x), predict(quantization.convert(prepared), x))


def test_answers_move_no_range_where_it_is_settled() -> None:
    x = samples()
    prepared = quantization.prepare(seasoned(RESNET), described(8, trained=True), RESNET.shape, torch.uint8)
    prepared.train()
    prepared(torch.from_numpy(x))
    floats = {name: value for name, value in prepared.state_dict().items() if value.is_floating_point()}
    before = {name: value.clone() for name, value in floats.items()}
    with quantization.settled(prepared):
        predict(prepared, 255 - x)
    assert all(torch.equal(value, floats[name]) for name, value in before.items())
    prepared(torch.from_numpy(255 - x))
    assert any(not torch.equal(value, floats[name]) for name, value in before.items()), "training goes on"


def test_a_network_of_two_layers_has_none_between_them() -> None:
    with pytest.raises(
        ParamsError, match="weight_bits is 4, and this student has 2 layers: .* choose a deeper student"
    ):
        quantization.prepare(models.build(MLP), described(4), MLP.shape, torch.float32)


def test_a_checkpoint_with_usual_weights_is_written_as_it_always_was() -> None:
    assert "weight_bits" not in described(8).model_dump()
    assert described(4).model_dump()["weight_bits"] == 4
