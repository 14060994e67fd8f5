"""Rounded logits have float's means; biases that are added to integers are integers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from limbeck import export, models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.models import Network
from limbeck.prediction import predict
from limbeck.quantization.biases import correct_bias_, round_biases_


def shift(prepared: nn.Module, network: Network, x: NDArray[np.generic]) -> float:
    moved_K = (predict(network, x) - predict(quantization.convert(prepared), x)).mean(0)
    return float(np.abs(moved_K).max())


@pytest.mark.parametrize("arithmetic", ["u8s7", "s8s8"])
def test_means_of_logits_that_rounding_moved_come_back(
    tmp_path: Path,
    network: Network,
    spec: Spec,
    x: NDArray[np.uint8],
    calibrated: Callable[..., nn.Module],
    arithmetic: str,
) -> None:
    prepared = calibrated(arithmetic)
    before = shift(prepared, network, x)
    correct_bias_(prepared, network, x)
    assert shift(prepared, network, x) < before / 5
    described = quantization.describe("static", arithmetic, Component(use="min_max"))
    quantization.save(tmp_path / "q", spec.model_copy(update={"quantization": described}), prepared)
    loaded = quantization.load(tmp_path / "q")[1]
    assert np.array_equal(predict(loaded, x), predict(quantization.convert(prepared), x)), "it is in the checkpoint"


@pytest.mark.parametrize("ending", [nn.Linear(4, 3, bias=False), nn.Sequential(nn.Linear(4, 3), nn.ReLU())])
def test_logits_that_no_bias_is_added_to_last_stay(ending: nn.Module, network: Network) -> None:
    example = torch.ones(2, 4)
    graph = torch.export.export(ending, (example,)).module()
    before = graph(example)
    correct_bias_(graph, network, np.zeros((0, 6, 6, 2), np.uint8))
    assert torch.equal(graph(example), before)


def biases(prepared: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in prepared.named_parameters() if "bias" in name}


def test_biases_of_int8_outputs_become_whole_steps_of_inputs_times_weights(
    calibrated: Callable[..., nn.Module],
) -> None:
    prepared = calibrated()
    before = biases(prepared)
    round_biases_(prepared)
    after = biases(prepared)
    inner, head = [[name for name in before if ("head" in name) is last] for last in (False, True)]
    assert len(inner) == 2
    assert all(torch.equal(before[name], after[name]) for name in head), "its output stays float"
    layers = [node for node in prepared.graph.nodes if "conv2d" in str(node.target)]  # type: ignore[union-attr]
    for name, layer in zip(inner, layers, strict=True):
        observers = [prepared.get_submodule(str(each.target)) for each in layer.args[:2]]  # type: ignore[union-attr]
        inputs, weights = (observer.calculate_qparams()[0] for observer in observers)  # type: ignore[operator]
        wholes = after[name] / (inputs * weights)
        assert torch.allclose(wholes, wholes.round(), atol=1e-2)
        assert wholes.abs().max() > 1
        assert ((after[name] - before[name]).abs() <= 0.5001 * inputs * weights).all()
    round_biases_(prepared)
    assert all(torch.equal(value, after[name]) for name, value in biases(prepared).items()), "once is enough"


@pytest.mark.parametrize("arithmetic", ["u8s7", "s8s8"])
def test_a_file_answers_as_its_graph_does_as_the_runtime_rounds_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arithmetic: str
) -> None:
    spec = Spec(
        model=Component.model_validate({"use": "resnet", "width": 8, "depth": 8}), shape=(8, 8, 3), dtype="uint8",
        classes=tuple("abcde"), mean=(120.0,) * 3, std=(60.0,) * 3,
    )  # fmt: skip
    x = np.random.default_rng(0).integers(0, 256, (128, 8, 8, 3), dtype=np.uint8)
    torch.manual_seed(0)
    network = models.build(spec).train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.from_numpy(x))
    described = quantization.describe("static", arithmetic, Component(use="min_max"))
    prepared = quantization.prepare(network.eval(), described, spec.shape, torch.uint8)
    quantization.calibrate_(prepared, x, 32)

    def equal_answers() -> float:
        graph = quantization.convert(prepared)
        export.to_onnx(tmp_path / "q.onnx", graph, spec, 18, {})
        return float(np.isclose(export.run(tmp_path / "q.onnx", x), predict(graph, x), atol=1e-4).all(1).mean())

    assert equal_answers() > 0.97
    monkeypatch.setattr("limbeck.quantization.biases.round_biases_", lambda _: None)
    assert equal_answers() < 0.8
