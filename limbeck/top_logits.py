"""Soft labels of thousands of classes: the largest logits, and one number for all the others.

Keeping the largest alone and dropping the rest would teach that the rest cannot be: its mass is kept beside them, as their
logsumexp, and spread over the classes that are not kept in the proportions of the teacher's mean answer on validation. At
temperature 1 the kept classes have the teacher's very probabilities (but for fp16), the others together theirs; how far the
others are off is measured while labelling (`lost_nats`, the mean KL of the teacher's answer to what is stored). Legend:
V views, N samples, K classes, T kept ones, B batch.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from limbeck.atomic import reserve

CLASSES, REST = "classes.npy", "rest.npy"
LARGEST = float(np.finfo(np.float16).max)
UNLIKELY = 0.01
"""What a class gets at least of an even share: no class is impossible."""
FLOOR = 1e-30
"""Keeps logarithms and shares finite."""


def share_of_rest(logits_NK: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The mean answer [K] of a teacher, which sums to 1."""
    shares_K = functional.softmax(torch.from_numpy(np.asarray(logits_NK)).double(), dim=1).mean(0)
    shares_K = shares_K + UNLIKELY / len(shares_K)
    found: NDArray[np.float32] = (shares_K / shares_K.sum()).float().numpy()
    return found


def filled(kept_BT: NDArray[Any], classes_BT: NDArray[Any], shares_K: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits [B, K] from the T kept ones with the rest's logsumexp behind them [B, T + 1] and their classes [B, T].

    No other class gets more than the smallest kept one: what its share would be above that goes to the others.
    """
    places = classes_BT.astype(np.int64)
    least_B1 = kept_BT[:, :-1].min(1, keepdims=True).astype(np.float64)
    shares_BK = np.tile(shares_K.astype(np.float64), (len(places), 1))
    np.put_along_axis(shares_BK, places, 0.0, axis=1)
    num_others = shares_BK.shape[1] - places.shape[1]
    mass_B1 = np.minimum(
        np.exp(kept_BT[:, -1:].astype(np.float64) - least_B1), num_others
    )  # in units of the smallest kept
    is_full_BK = np.zeros(shares_BK.shape, bool)
    while True:
        open_B1 = np.where(is_full_BK, 0.0, shares_BK).sum(1, keepdims=True)
        left_B1 = mass_B1 - is_full_BK.sum(1, keepdims=True)
        spread_BK = shares_BK * (left_B1 / np.maximum(open_B1, FLOOR))
        found = ~is_full_BK & (spread_BK > 1)
        if not found.any():
            break
        is_full_BK |= found
    logits_BK = least_B1 + np.log(np.where(is_full_BK, 1.0, np.maximum(spread_BK, FLOOR)))
    np.put_along_axis(logits_BK, places, kept_BT[:, :-1].astype(np.float64), axis=1)
    whole: NDArray[np.float32] = logits_BK.astype(np.float32)
    return whole


class Kept:
    """Writes which classes were kept, and measures what is lost.

    Args:
        folder: of the labels.
        shape: V, N, T.
        shares_K: how the rest is spread.

    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], shares_K: NDArray[np.float32]) -> None:
        self.folder, self.shares_K = folder, shares_K
        dtype = np.uint16 if len(shares_K) <= 1 << 16 else np.int32
        self.classes = np.lib.format.open_memmap(folder / CLASSES, mode="w+", dtype=dtype, shape=shape)
        reserve(folder / CLASSES)
        np.save(folder / REST, shares_K, allow_pickle=False)
        self._lost, self._num = 0.0, 0

    def take(self, view: int, indices: NDArray[np.int64], logits_BK: Tensor) -> Tensor:
        """What is stored [B, T + 1] of the teacher's answers to some samples of a view."""
        values_BT, places_BT = logits_BK.float().topk(self.classes.shape[2], dim=1)
        rest_B1 = logits_BK.float().scatter(1, places_BT, -torch.inf).logsumexp(1, keepdim=True)
        self.classes[view, indices] = places_BT.numpy()
        kept_BT = torch.cat([values_BT, rest_B1.clamp(min=-LARGEST)], dim=1)
        stored = torch.from_numpy(filled(kept_BT.half().float().numpy(), places_BT.numpy(), self.shares_K))
        teacher, ours = functional.log_softmax(logits_BK.float(), 1), functional.log_softmax(stored, 1)
        self._lost += float(functional.kl_div(ours, teacher, reduction="sum", log_target=True))
        self._num += len(indices)
        return kept_BT

    def close(self) -> float:
        """Finish the file; the mean KL of the teacher's answer to what is stored, in nats."""
        self.classes.flush()
        return self._lost / self._num


class TopLogits:
    """Stored logits as an array [V, N, K] that is filled in row by row when it is read."""

    def __init__(self, kept_VNT: NDArray[Any], classes_VNT: NDArray[Any], shares_K: NDArray[Any]) -> None:
        assert kept_VNT.shape[2] == classes_VNT.shape[2] + 1, "the rest's mass stands behind the kept logits"
        self._kept, self._classes, self._shares = kept_VNT, classes_VNT, np.asarray(shares_K)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, place: tuple[int, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Logits [B, K] of the samples `place[1]` [B] of view `place[0]`."""
        return filled(np.asarray(self._kept[place]), np.asarray(self._classes[place]), self._shares)
