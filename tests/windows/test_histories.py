"""New histories arrive as arrays, like any samples; what drifts in them is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources.shop import shop
from limbeck.drift.signals import signals_of
from limbeck.params import SplitParams
from tests.windows.conftest import Yard


def taken(seed: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    source = shop(users=80, items=50, length=6, seed=seed)
    return np.stack(list(source.train.samples()))[:60], source.train.labels[:60]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("histories") / "data"
    shares = SplitParams(test=None, validation=None, calibration=0.1)
    splits.write(folder, shop(users=80, items=50, length=6), shares, 0, max_overlap=1.0)
    return folder


def test_a_window_of_histories_is_taken_in(tmp_path: Path, histories: Path) -> None:
    yard = Yard(tmp_path, histories)
    x, y = taken(5)
    yard.put("week.npz", x=x, y=y)
    (arrived,) = yard.take(teacher=None).arrived
    assert arrived.reasons == ()
    assert np.load(arrived.folder / "x.npy").shape[1:] == (6,)


def test_histories_of_another_length_are_set_aside(tmp_path: Path, histories: Path) -> None:
    yard = Yard(tmp_path, histories)
    x, y = taken(5)
    yard.put("week.npz", x=x[:, 1:], y=y)
    (arrived,) = yard.take(teacher=None).arrived
    assert [reason.check for reason in arrived.reasons] == ["schema"]


def test_histories_have_signals_of_drift(histories: Path) -> None:
    meta = splits.read_meta(histories)
    spec = Spec(
        model=Component.model_validate({"use": "two_tower", "width": 8, "hidden": 8}), shape=meta.shape, dtype=meta.dtype,
        classes=meta.classes, mean=(), std=(),
    )  # fmt: skip
    torch.manual_seed(0)
    network: Any = models.build(spec).eval()
    found = signals_of(network, taken(0)[0], teacher=network, labels_N=None, max_samples=50, batch_size=16, seed=0)
    assert found.embeddings_ND is not None
    assert found.embeddings_ND.shape == (50, 8)
    assert found.predicted_N is not None
    assert found.agreement_N is not None
    assert found.agreement_N.all()
