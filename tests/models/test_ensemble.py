from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck import export, models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.models.ensemble import Ensemble, spec_of
from limbeck.prediction import predict

RAW = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def member(width: int, mean: float, std: float) -> Spec:
    return Spec(
        model=Component(use="convnet", width=width, depth=2), shape=(8, 8, 3), dtype="uint8",
        classes=("a", "b", "c"), mean=(mean,) * 3, std=(std,) * 3,
    )  # fmt: skip


MEMBERS = [member(4, 120.0, 60.0), member(6, 0.0, 255.0)]


def built(weights: list[float]) -> tuple[models.Network, list[models.Network]]:
    torch.manual_seed(0)
    whole = models.build(spec_of(MEMBERS, weights)).eval()
    parts = whole.body.get_submodule("members").children()
    return whole, list(parts)  # type: ignore[arg-type]


class Fixed(torch.nn.Module):
    """Answers one row of logits, whatever it is asked."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.logits


ROW = st.lists(st.floats(-20, 20), min_size=3, max_size=3)


@given(one=ROW, other=ROW, weight=st.floats(0.1, 10))
def test_it_answers_the_logarithm_of_the_weighted_mean_of_probabilities(
    one: list[float], other: list[float], weight: float
) -> None:
    answer = Ensemble([Fixed(one), Fixed(other)], [1.0, weight])(torch.zeros(1, 4))
    p, q = (torch.tensor(row).double().softmax(0) for row in (one, other))
    expected = (p + weight * q) / (1 + weight)
    assert torch.allclose(answer.double().exp()[0], expected, atol=1e-5)
    assert torch.allclose(answer.softmax(1), answer.exp(), atol=1e-5), "softmax gives them back: they are logits"


@given(scale=st.floats(1, 50))
def test_a_member_is_not_heard_more_for_larger_logits(scale: float) -> None:
    loud, other = [0.0, 40.0 * scale, 0.0], [40.0, 0.0, 0.0]
    answer = Ensemble([Fixed(loud), Fixed(other)], [1.0, 1.0])(torch.zeros(1, 4))
    assert answer.exp()[0].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-5)


def test_each_member_sees_raw_samples_through_a_normalization_of_its_own() -> None:
    whole, parts = built([1.0, 3.0])
    probabilities = [torch.from_numpy(predict(part, RAW)).softmax(1) for part in parts]
    expected = (probabilities[0] + 3 * probabilities[1]) / 4
    assert torch.allclose(torch.from_numpy(predict(whole, RAW)).exp(), expected, atol=1e-6)


def test_it_is_one_checkpoint_and_one_onnx_file(tmp_path: Path) -> None:
    whole, _ = built([2.0, 1.0])
    spec = spec_of(MEMBERS, [2.0, 1.0])
    models.save(tmp_path / "m", spec, whole)
    again_spec, again = models.load(tmp_path / "m")
    assert np.array_equal(predict(again, RAW), predict(whole, RAW))
    export.to_onnx(tmp_path / "m.onnx", again, again_spec, 18, {})
    export.check_parity(tmp_path / "m.onnx", again, RAW, max_difference=1e-4, min_equal=1.0)
