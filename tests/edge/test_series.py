"""Sensor series on a device: raw windows in, golden vectors proven."""

from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck import export, models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.edge import EdgeError, golden, trial
from limbeck.edge import update as updating
from limbeck.edge.agent import Agent
from limbeck.edge.fetch import Folder
from tests.edge.delivery import Publisher, provisioned

SHAPE = (32, 6)
WINDOWS = np.random.default_rng(0).normal(3, 2, (8, *SHAPE)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained network; what is published from now on has golden vectors of series."""
    monkeypatch.setattr("tests.edge.delivery.INPUTS", WINDOWS[:4])
    spec = Spec(
        model=Component.model_validate({"use": "resnet1d", "width": 4, "depth": 2, "kernel": 5}), shape=SHAPE,
        dtype="float32", classes=tuple("abcdefghij"), mean=(3.0,) * 6, std=(2.0,) * 6,
    )  # fmt: skip
    torch.manual_seed(0)
    export.to_onnx(tmp_path / "series.onnx", models.build(spec).eval(), spec, 18, {})
    return tmp_path / "series.onnx"


def test_an_agent_answers_raw_series_as_the_golden_vectors_say(
    file: Path, publisher: Publisher, tmp_path: Path
) -> None:
    home = provisioned(publisher, tmp_path)
    publisher.publish(1, file=file, input={"name": "input", "shape": ["batch", *SHAPE], "dtype": "float32"})
    assert updating.update(home, Folder(publisher.folder), prove=trial.examine).kind == "switched"
    inputs, expected = golden.read(publisher.bundles[1] / "golden.npz", "model.int8")
    assert np.array_equal(inputs, WINDOWS[:4]), "raw values are what is kept"
    with Agent(home.path, updates=False) as agent:
        assert np.allclose(agent.predict(WINDOWS[:4]), expected, atol=1e-5)
        for wrong in (WINDOWS.astype(np.float64), WINDOWS[:, :16], WINDOWS[..., :5]):
            with pytest.raises(EdgeError, match=r"takes float32 \[batch, 32, 6\], raw"):
                agent.predict(wrong)
