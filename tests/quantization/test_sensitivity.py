from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from limbeck import export, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.models import Network
from limbeck.prediction import predict
from limbeck.quantization.sensitivity import layers_of, left_float, most_sensitive, simulate
from tests.quantization.conftest import LAYERS


@pytest.fixture(scope="module")
def prepared(calibrated: Callable[..., nn.Module]) -> nn.Module:
    return calibrated()


def silent(done: int, total: int, note: str) -> None:
    pass


def test_the_simulation_answers_like_the_converted_graph(prepared: nn.Module, x: NDArray[np.uint8]) -> None:
    assert np.allclose(predict(simulate(prepared), x), predict(quantization.convert(prepared), x), atol=1e-5)


def test_every_layer_that_multiplies_int8_has_the_name_of_its_module(prepared: nn.Module) -> None:
    assert tuple(layers_of(simulate(prepared))) == LAYERS


def test_with_every_layer_left_in_float_nothing_is_lost(
    prepared: nn.Module, network: Network, x: NDArray[np.uint8]
) -> None:
    graph = simulate(prepared)
    for node in layers_of(graph).values():
        with left_float(graph, node):
            assert not np.allclose(predict(graph, x), predict(network, x), atol=1e-4)
    assert np.array_equal(predict(graph, x), predict(simulate(prepared), x)), "put back"


def test_the_layer_that_a_loud_channel_spoils_comes_first_and_each_comes_once(
    prepared: nn.Module, network: Network, x: NDArray[np.uint8]
) -> None:
    steps: list[tuple[int, int, str]] = []
    ranked = most_sensitive(prepared, network, x, lambda *step: steps.append(step))
    assert next(ranked) == "body.layers.3"
    assert len(steps) == len(LAYERS), "the second is not looked for before it is asked for"
    assert {"body.layers.3", *ranked} == set(LAYERS)


def test_a_layer_left_in_float_stays_so_in_the_checkpoint_and_in_the_file_that_ships(
    network: Network, spec: Spec, x: NDArray[np.uint8], prepared: nn.Module, tmp_path: Path
) -> None:
    described = quantization.describe("static", "u8s7", Component(use="min_max"), float_layers=("body.layers.3",))
    mixed = quantization.prepare(network, described, spec.shape, torch.uint8)
    quantization.calibrate_(mixed, x, 16)
    quantization.save(tmp_path / "q", spec.model_copy(update={"quantization": described}), mixed)
    again, loaded = quantization.load(tmp_path / "q")
    assert again.quantization is not None
    assert again.quantization.float_layers == ("body.layers.3",)
    assert np.array_equal(predict(loaded, x), predict(quantization.convert(mixed), x))

    export.to_onnx(tmp_path / "q.onnx", loaded, spec, 18, {})
    export.check_parity(tmp_path / "q.onnx", loaded, x, max_difference=0.01, min_equal=0.95)
    weights = {tuple(t.dims): t.data_type for t in onnx.load(tmp_path / "q.onnx").graph.initializer if len(t.dims) > 1}
    assert weights == {
        (4, 2, 3, 3): onnx.TensorProto.INT8, (8, 4, 3, 3): onnx.TensorProto.FLOAT, (3, 32): onnx.TensorProto.INT8,
        (6, 2): onnx.TensorProto.FLOAT,  # the normalization, a row of pixels
    }  # fmt: skip

    whole = predict(quantization.convert(prepared), x)
    expected = predict(network, x)
    assert np.square(predict(loaded, x) - expected).mean() < 0.5 * np.square(whole - expected).mean()
