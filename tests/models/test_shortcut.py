from pathlib import Path

import numpy as np
import torch

from limbeck import export, models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.models.resnet import Pad

SPEC = Spec(
    model=Component.model_validate({"use": "resnet", "width": 4, "depth": 8, "shortcut": "pad"}), shape=(9, 9, 3),
    dtype="uint8", classes=("a", "b", "c"), mean=(120.0,) * 3, std=(60.0,) * 3,
)  # fmt: skip


def test_option_a_takes_every_second_pixel_and_puts_zeros_around_the_channels() -> None:
    x = torch.randn(2, 4, 9, 9)
    padded = Pad(4, 8)(x)
    assert padded.shape == (2, 8, 5, 5)
    assert torch.equal(padded[:, 2:6], x[:, :, ::2, ::2])
    assert not padded[:, :2].any()
    assert not padded[:, 6:].any()


def test_it_has_no_weights_of_its_own() -> None:
    projected = SPEC.model_copy(update={"model": Component.model_validate({"use": "resnet", "width": 4, "depth": 8})})
    pad, projection = (set(models.build(spec).state_dict()) for spec in (SPEC, projected))
    assert pad < projection
    assert all(".shortcut." in name for name in projection - pad)


def test_it_exports(tmp_path: Path) -> None:
    network = models.build(SPEC).eval()
    x = np.random.default_rng(0).integers(0, 256, (5, 9, 9, 3), dtype=np.uint8)
    export.to_onnx(tmp_path / "pad.onnx", network, SPEC, 18, {})
    export.check_parity(tmp_path / "pad.onnx", network, x, max_difference=1e-4, min_equal=1.0)
