"""Tables of embeddings: what they become, also where they are a layer's weights and where they are trained."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from limbeck import export, quantization
from limbeck.components import Component
from limbeck.evaluation import predict
from tests.test_zoo import history_of, samples, seasoned

TIED = {
    "sequential": {"use": "sequential", "width": 6, "depth": 1, "heads": 1, "hidden": 5},
    "two_tower": {"use": "two_tower", "width": 6, "hidden": 5},
}


@pytest.mark.parametrize("use", TIED)
def test_a_table_that_is_the_last_layers_weights_learns_as_one_tensor_of_bytes(use: str, tmp_path: Path) -> None:
    spec = history_of(TIED[use], 4, 8)
    x = samples(spec)
    described = quantization.describe("static", "u8s7", Component(use="min_max"), trained=True)
    prepared = quantization.prepare(seasoned(spec), described, spec.shape, torch.int32)
    before = predict(quantization.convert(_shown(prepared, x)), x)
    labels = torch.from_numpy(x[:, 0].clip(1).astype(np.int64)) - 1
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.3)
    losses = []
    for _ in range(6):
        losses.append(functional.cross_entropy(prepared(torch.from_numpy(x)), labels))
        optimizer.zero_grad()
        losses[-1].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < losses[0]

    quantization.save(tmp_path / "q", spec.model_copy(update={"quantization": described}), prepared)
    _, loaded = quantization.load(tmp_path / "q")
    answers = predict(loaded, x)
    assert np.array_equal(answers, predict(quantization.convert(prepared), x))
    assert not np.allclose(answers, before, atol=0.01)
    export.to_onnx(tmp_path / "q.onnx", loaded, spec, 18, {})
    export.check_parity(tmp_path / "q.onnx", loaded, x, max_difference=0.03, min_equal=0.9)
    tables = [t for t in onnx.load(tmp_path / "q.onnx").graph.initializer if tuple(t.dims) == (8, 6)]
    assert [table.data_type for table in tables] == [onnx.TensorProto.INT8]


def _shown(prepared: torch.nn.Module, x: np.ndarray) -> torch.nn.Module:
    quantization.calibrate_(prepared, x, 24)
    return prepared.train()
