"""Observers that torchao has none of. Both read torchao's streamed histogram and differ in the range they take from it."""

from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e import HistogramObserver

NUM_CANDIDATES = 128
"""Positions of an end between zero and the extreme value."""
POINTS_PER_BIN = 4
"""Values that stand for those of a bin: a step may become as small as a bin is wide."""
NUM_PASSES = 3
"""Searches for either end, the other one held."""


class _OfHistogram(HistogramObserver):  # type: ignore[misc]
    """A range from the histogram; one that has seen nothing, or one value only, has no choice.

    State: counts of 2,048 bins between the smallest and the largest value seen, and these two.
    """

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale [1] and zero point [1]."""
        if not self.min_val < self.max_val:
            return self._calculate_qparams(self.min_val, self.max_val)  # type: ignore[no-any-return]
        return self._calculate_qparams(*self._range())  # type: ignore[no-any-return]

    def _range(self) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Percentile(_OfHistogram):
    """See `limbeck.quantization.observers.percentile`."""

    def __init__(self, *, share: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.share = share

    def _range(self) -> tuple[Tensor, Tensor]:
        below = self.histogram.double().cumsum(0)
        total = below[-1]
        width = (self.max_val - self.min_val) / self.bins
        low = int((below <= (1 - self.share) * total).sum())  # bins that lie in the lower tail as a whole
        high = int((below < self.share * total).sum()) + 1  # the first edge with `share` below it
        return self.min_val + width * low, self.min_val + width * high


class LeastSquares(_OfHistogram):
    """See `limbeck.quantization.observers.mse`."""

    def _range(self) -> tuple[Tensor, Tensor]:
        low, high = (float(end) for end in (self.min_val.clamp(max=0.0), self.max_val.clamp(min=0.0)))
        shares = torch.arange(1, NUM_CANDIDATES + 1, dtype=torch.float64) / NUM_CANDIDATES
        lows, highs = shares * low, shares * high
        for _ in range(NUM_PASSES):
            if high > 0:
                high = float(highs[self._errors(torch.full_like(highs, low), highs).argmin()])
            if low < 0:
                low = float(lows[self._errors(lows, torch.full_like(lows, high)).argmin()])
        return torch.tensor(low, dtype=torch.float32), torch.tensor(high, dtype=torch.float32)

    def _errors(self, lows_C: Tensor, highs_C: Tensor) -> Tensor:
        """Sum of squared errors [C] of what was seen, rounded within each candidate range."""
        edges = torch.arange(self.bins * POINTS_PER_BIN, dtype=torch.float64) + 0.5
        points_P = float(self.min_val) + edges * float(self.max_val - self.min_val) / len(edges)
        counts_P = self.histogram.double().repeat_interleave(POINTS_PER_BIN) / POINTS_PER_BIN
        steps_C1 = ((highs_C - lows_C) / (self.quant_max - self.quant_min)).clamp(min=float(self.eps))[:, None]
        zeros_C1 = self.quant_min - (lows_C[:, None] / steps_C1).round()
        whole_CP = ((points_P / steps_C1).round() + zeros_C1).clamp(self.quant_min, self.quant_max)
        errors_CP = points_P - (whole_CP - zeros_C1) * steps_C1
        sums_C: Tensor = (errors_CP.square() * counts_P).sum(1)
        return sums_C
