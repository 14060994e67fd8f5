"""The teacher labels what nobody labelled. Legend: N samples, K classes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.data.window import UNLABELLED
from limbeck.edge.usage import softmax
from limbeck.errors import DataError


@dataclass(frozen=True)
class Teacher:
    """Whoever is asked.

    Attributes:
        answers: raw samples [N, ...] -> logits [N, K] over the prepared data's classes.
        digest: of its checkpoint.

    """

    answers: Callable[[NDArray[Any]], NDArray[np.float32]]
    digest: str

    @classmethod
    def of(cls, folder: Path) -> "Teacher":
        """The teacher of a checkpoint.

        Raises:
            CheckpointError: it is none, or corrupt.

        """
        from limbeck import checkpoint, models
        from limbeck.prediction import predict

        _, network = models.load(folder)
        return cls(partial(predict, network), checkpoint.digest_of(folder))

    def probabilities(self, x: NDArray[Any], num_classes: int) -> NDArray[np.float64]:
        """[N, K] for raw samples.

        Raises:
            DataError: it answers for another number of classes.

        """
        if not len(x):
            return np.zeros((0, num_classes))
        logits_NK = self.answers(x)
        if logits_NK.shape[1] != num_classes:
            raise DataError(
                f"the teacher {self.digest[:16]} answers for {logits_NK.shape[1]} classes; the prepared data have "
                f"{num_classes}. Take the teacher that was trained on them."
            )
        return softmax(logits_NK)


def fill(
    y: NDArray[np.int64], probabilities_NK: NDArray[np.float64], min_confidence: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels [N] with the teacher's answers where there were none, and its confidence [N], NaN where there was one.

    An answer below `min_confidence` is kept as confidence alone: the sample stays without a label.
    """
    is_asked = y == UNLABELLED
    best, answers = probabilities_NK.max(axis=1), probabilities_NK.argmax(axis=1)
    filled = np.where(is_asked & (best >= min_confidence), answers, y).astype(np.int64)
    return filled, np.where(is_asked, best, np.nan).astype(np.float32)
