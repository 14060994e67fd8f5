"""Of thousands of classes the largest logits are kept, and what the others have together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from limbeck import labels, models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.splits import read_meta
from limbeck.errors import DataError
from limbeck.models import Network
from limbeck.params import Params
from limbeck.top_logits import Kept, filled, share_of_rest
from limbeck.training import TrainingData

K, T = 40, 5


def logits_of(seed: int, spread: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, spread, (6, K)).astype(np.float32))


def kept(folder: Path, logits_BK: torch.Tensor, shares_K: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Logits [B, K] as a student sees them, and the nats that were lost."""
    writer = Kept(folder, (1, len(logits_BK), T), shares_K)
    stored = writer.take(0, np.arange(len(logits_BK)), logits_BK).half().numpy()
    return filled(stored, np.asarray(writer.classes[0]), shares_K), writer.close()


@given(st.integers(0, 10**6), st.sampled_from([0.5, 2.0, 8.0]))
def test_kept_classes_have_their_probabilities_and_the_others_theirs_together(
    tmp_path_factory: pytest.TempPathFactory, seed: int, spread: float
) -> None:
    logits = logits_of(seed, spread)
    shares = share_of_rest(logits_of(seed + 1, 1.0).numpy())
    found, _ = kept(tmp_path_factory.mktemp("top"), logits, shares)
    teacher, ours = functional.softmax(logits, 1).numpy(), functional.softmax(torch.from_numpy(found), 1).numpy()
    top = np.argsort(-logits.numpy(), axis=1)[:, :T]
    assert np.allclose(np.take_along_axis(ours, top, 1), np.take_along_axis(teacher, top, 1), atol=5e-3)
    least = np.take_along_axis(found, top, 1).min(1, keepdims=True)
    rest = np.ones_like(ours, bool)
    np.put_along_axis(rest, top, False, axis=1)
    assert (np.where(rest, found, -np.inf) <= least + 1e-5).all(), "nothing overtakes what was kept"
    ratio = np.where(rest & (found < least - 1e-3), ours / shares, np.nan)
    assert np.allclose(np.nanmin(ratio, 1), np.nanmax(ratio, 1), rtol=1e-2), "the others share as the mean answer does"


def test_nothing_is_lost_where_the_rest_is_spread_as_the_mean_answer(tmp_path: Path) -> None:
    logits = logits_of(0, 2.0)[:1].repeat(6, 1)
    _, lost = kept(tmp_path, logits, share_of_rest(logits.numpy()))
    assert lost == pytest.approx(0, abs=2e-3)


def test_what_is_lost_is_the_divergence_from_what_is_stored(tmp_path: Path) -> None:
    logits = logits_of(3, 2.0)
    found, lost = kept(tmp_path, logits, share_of_rest(logits_of(4, 1.0).numpy()))
    expected = functional.kl_div(
        functional.log_softmax(torch.from_numpy(found), 1), functional.log_softmax(logits, 1),
        reduction="batchmean", log_target=True,
    )  # fmt: skip
    assert lost == pytest.approx(float(expected), rel=1e-3)
    assert lost > 0.01


@pytest.fixture(scope="module")
def teacher(data: Path, small: Component) -> Network:
    meta = read_meta(data)
    torch.manual_seed(0)
    return models.build(
        Spec(model=small, shape=meta.shape, dtype=meta.dtype, classes=meta.classes, mean=meta.mean, std=meta.std)
    ).eval()


def test_a_student_sees_whole_rows_made_of_the_kept_ones(
    tmp_path: Path, data: Path, teacher: Network, tiny: Params
) -> None:
    params = tiny.label.model_copy(update={"top": 3})
    labels.write(
        tmp_path, data, teacher, params, seed=0, teacher_digest="t", teacher_quality=0.9, progress=lambda *_: None
    )
    told = labels.read_labels_meta(tmp_path)
    assert told.top == 3
    assert told.lost_nats is not None
    assert np.load(tmp_path / labels.LOGITS, mmap_mode="r").shape[2] == 4
    batch = next(TrainingData.of(data, *labels.read_views(data, tmp_path, with_teacher=True)).batches(1, 32, seed=0))
    with torch.inference_mode():
        live = teacher(batch.inputs)
    assert batch.teacher_BK is not None
    assert batch.teacher_BK.shape == live.shape
    gaps = live.topk(3).values - batch.teacher_BK.topk(3).values
    assert float(gaps.abs().max()) < 0.01
    with (tmp_path / "classes.npy").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x09")
    with pytest.raises(DataError, match="classes.npy has changed since it was made"):
        labels.read_views(data, tmp_path, with_teacher=True)


def test_labels_that_keep_fewer_numbers_need_less_room() -> None:
    assert labels.num_values(10, None) == 10
    assert labels.num_values(3000, 64) == 64 + 1 + 64
    assert labels.num_values(100_000, 64) == 64 + 1 + 128
