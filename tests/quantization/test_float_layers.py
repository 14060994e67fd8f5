"""Layers left in float where networks have more than images: convolutions over time and over words, tables."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from torch import nn

from limbeck import export, models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.prediction import predict
from limbeck.quantization.sensitivity import layers_of, left_float, most_sensitive, simulate
from tests.test_zoo import NUM_CODES, history_of, samples, seasoned, spec_of

TEXTS = {"use": "text_cnn", "rows": NUM_CODES, "width": 6, "filters": 10, "reach": 3, "hidden": 7}
SPECS = {
    "text_cnn": Spec(
        model=Component.model_validate(TEXTS), shape=(5,), dtype="int32", classes=("a", "b", "c"), mean=(), std=()
    ),
    "resnet1d": spec_of(Component(use="resnet1d", width=4, depth=1, kernel=3), (9, 3), 3),
    "ds_cnn": spec_of(Component(use="ds_cnn", width=4, depth=1), (8, 6, 1), 3),
    "sequential": history_of({"use": "sequential", "width": 4, "depth": 1, "heads": 1, "hidden": 6}, 3, 8),
}
CONVOLUTION = {"text_cnn": "body.filters", "resnet1d": "body.stem.0", "ds_cnn": "body.layers.3"}


def calibrated(spec: Spec, x: NDArray[Any], *float_layers: str) -> tuple[Spec, nn.Module]:
    """A prepared network that has seen the samples, and the spec that its checkpoint holds."""
    described = quantization.describe("static", "u8s7", Component(use="min_max"), float_layers=float_layers)
    prepared = quantization.prepare(seasoned(spec), described, spec.shape, models.torch_dtype(spec.dtype))
    quantization.calibrate_(prepared, x, 16)
    return spec.model_copy(update={"quantization": described}), prepared


def weights_of(file: Path, network: nn.Module, name: str) -> set[int]:
    """The types of all tensors in a file that have the shape of a layer's weights."""
    shape = tuple(network.state_dict()[f"{name}.weight"].shape)
    return {tensor.data_type for tensor in onnx.load(file).graph.initializer if tuple(tensor.dims) == shape}


@pytest.mark.parametrize("use", CONVOLUTION)
def test_every_layer_with_weights_is_ranked_whatever_it_runs_over(use: str) -> None:
    spec, name = SPECS[use], CONVOLUTION[use]
    network, x = seasoned(spec), samples(spec)
    _, prepared = calibrated(spec, x)
    ranked = list(most_sensitive(prepared, network, x, lambda *_: None))
    assert name in ranked
    assert sorted(ranked) == sorted(name for name, layer in network.named_modules() if isinstance(layer, models.LAYERS))


@pytest.mark.parametrize(
    ("use", "more"), [("text_cnn", ("body.codes",)), pytest.param("resnet1d", (), marks=pytest.mark.slow)]
)
def test_convolutions_and_tables_left_in_float_stay_so_in_the_checkpoint_and_in_the_file(
    use: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    spec, names = SPECS[use], (CONVOLUTION[use], *more)
    network, x = seasoned(spec), samples(spec)
    mixed, prepared = calibrated(spec, x, *names)
    assert not set(names) & set(layers_of(simulate(prepared)))
    quantization.save(tmp_path / "q", mixed, prepared)
    again, loaded = quantization.load(tmp_path / "q")
    assert again.quantization is not None
    assert again.quantization.float_layers == names
    assert np.array_equal(predict(loaded, x), predict(quantization.convert(prepared), x))

    export.to_onnx(tmp_path / "q.onnx", loaded, spec, 18, {})
    export.check_parity(tmp_path / "q.onnx", loaded, x, max_difference=0.02, min_equal=0.9)
    for name in names:
        assert weights_of(tmp_path / "q.onnx", network, name) == {onnx.TensorProto.FLOAT}
    assert weights_of(tmp_path / "q.onnx", network, "body.head") == {onnx.TensorProto.INT8}


def test_a_table_that_is_a_layers_weights_stays_in_float_with_it_and_is_stored_once(tmp_path: Path) -> None:
    spec = SPECS["sequential"]
    network, x = seasoned(spec), samples(spec)
    _, whole = calibrated(spec, x)
    _, mixed = calibrated(spec, x, "body.catalogue.items")
    graph = simulate(whole)
    with left_float(graph, layers_of(graph)["body.catalogue.items"]):
        told = predict(graph, x)
    int8 = quantization.convert(mixed)
    found = predict(int8, x)
    assert np.abs(told - found).max() < 0.2 * np.abs(predict(simulate(whole), x) - found).max()
    export.to_onnx(tmp_path / "q.onnx", int8, spec, 18, {})
    export.check_parity(tmp_path / "q.onnx", int8, x, max_difference=0.02, min_equal=0.9)
    assert weights_of(tmp_path / "q.onnx", network, "body.catalogue.items") == {onnx.TensorProto.FLOAT}
