"""Sound on a device: raw samples in, golden vectors proven, by a file whose spectrograms are formulas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck import export, models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.edge import EdgeError, golden, trial
from limbeck.edge import update as updating
from limbeck.edge.agent import Agent
from limbeck.edge.fetch import Folder
from tests.edge.delivery import Publisher, provisioned

SHAPE = (1600, 1)
SOUNDS = np.random.default_rng(0).integers(-9000, 9000, (8, *SHAPE), dtype=np.int16)
MODEL: dict[str, Any] = {
    "use": "logmel",
    "rate_hz": 8000,
    "num_mels": 16,
    "model": {"use": "ds_cnn", "width": 4, "depth": 1},
}


def int8(path: Path) -> None:
    """A network on sound, untrained and quantized, exported."""
    spec = Spec(
        model=Component.model_validate(MODEL), shape=SHAPE, dtype="int16", classes=tuple("abcdefghij"), mean=(0.0,), std=(5000.0,)
    )  # fmt: skip
    torch.manual_seed(0)
    prepared = quantization.prepare(
        models.build(spec).eval(), quantization.describe("static", "u8s7", Component(use="min_max")), SHAPE, torch.int16
    )
    quantization.calibrate_(prepared, SOUNDS, 8)
    export.to_onnx(path, quantization.convert(prepared), spec, 18, {})


SAMPLES = {"name": "input", "shape": ["batch", *SHAPE], "dtype": "int16"}


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file; what is published from now on has golden vectors of sound."""
    monkeypatch.setattr("tests.edge.delivery.INPUTS", SOUNDS[:4])
    int8(tmp_path / "sound.onnx")
    return tmp_path / "sound.onnx"


def test_an_agent_answers_raw_sound_as_the_golden_vectors_say(
    sound: Path, publisher: Publisher, tmp_path: Path
) -> None:
    home = provisioned(publisher, tmp_path)
    publisher.publish(1, file=sound, input=SAMPLES)
    assert updating.update(home, Folder(publisher.folder), prove=trial.examine).kind == "switched"
    inputs, expected = golden.read(publisher.bundles[1] / "golden.npz", "model.int8")
    assert np.array_equal(inputs, SOUNDS[:4]), "raw samples are what is kept"
    with Agent(home.path, updates=False) as agent:
        assert np.allclose(agent.predict(SOUNDS[:4]), expected, atol=1e-5)
        for wrong in (SOUNDS.astype(np.float32), SOUNDS[:, :800], SOUNDS[..., 0]):
            with pytest.raises(EdgeError, match="int16.*1600"):
                agent.predict(wrong)


def test_a_file_that_answers_sound_otherwise_than_its_golden_vectors_is_not_taken(
    sound: Path, publisher: Publisher, tmp_path: Path
) -> None:
    home = provisioned(publisher, tmp_path)
    publisher.publish(1, file=sound, input=SAMPLES, golden_factor=1.5)
    assert updating.update(home, Folder(publisher.folder), prove=trial.examine).kind != "switched"
