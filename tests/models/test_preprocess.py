"""Every kind of sample reaches the body of a network as that takes it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources.source import Source, in_memory
from limbeck.kinds import kind_of
from limbeck.models import Preprocess, body_shape
from limbeck.params import SplitParams


def spec(shape: tuple[int, ...], dtype: str, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> Spec:
    return Spec(model=Component(use="mlp"), shape=shape, dtype=dtype, classes=("a", "b"), mean=mean, std=std)


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((8, 8, 3), "uint8", "image"),
        ((8000, 1), "int16", "sequence"),
        ((16,), "float32", "features"),
        ((16,), "int32", "codes"),
        ((4, 16), "int64", "codes"),
    ],
)
def test_shape_and_type_say_what_a_sample_is(shape: tuple[int, ...], dtype: str, kind: str) -> None:
    assert kind_of(shape, dtype) == kind


def test_sequences_come_normalized_with_channels_before_steps() -> None:
    described = spec((5, 2), "int16", mean=(10.0, -4.0), std=(2.0, 4.0))
    raw = torch.tensor([10, -4, 12, 0], dtype=torch.int16).reshape(1, 2, 2)
    assert torch.equal(Preprocess(described)(raw), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]))
    assert body_shape(described) == (2, 5)


def test_codes_name_rows_and_stay_as_they_are() -> None:
    described = spec((3,), "int32")
    raw = torch.tensor([[7, 2**24 + 1, 0]], dtype=torch.int32)
    assert torch.equal(Preprocess(described)(raw), raw)
    assert body_shape(described) == (3,)


def test_codes_have_neither_mean_nor_spread(tmp_path: Path) -> None:
    x, y = np.arange(120, dtype=np.int32).reshape(40, 3), np.arange(40) % 2
    shares = SplitParams(test=0.2, validation=0.2, calibration=0.2)
    meta = splits.write(tmp_path, Source("words", ("a", "b"), in_memory(x, y)), shares, seed=0)
    assert (meta.mean, meta.std, meta.dtype) == ((), (), "int32")
