"""What values looked like, in few bytes: a quantile sketch that merges (DDSketch: Masson, Rim and Lee, VLDB 2019).

A value's bucket is the power of `growth` above it, so that every quantile is right within (growth - 1) / 2 of itself.
Sketches of one growth add up: of threads, hours, devices.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMALLEST = 1e-9
"""Magnitudes below it count as zero."""


class Sketch:
    """Counts per bucket, with exact count, sum, least and largest.

    Args:
        growth: from bucket to bucket, above 1.
    """

    def __init__(self, growth: float = 1.04) -> None:
        self.growth = growth
        self.count, self.total = 0, 0.0
        self.least, self.most = math.inf, -math.inf
        self._buckets: dict[int, int] = {}  # sign * (power - offset): negative values mirror positive ones, 0 is zero
        self._log = math.log(growth)
        self._offset = math.ceil(math.log(SMALLEST) / self._log) - 1

    def add(self, values: ArrayLike) -> None:
        """Count values [...]; those that are not finite are left out."""
        x = np.asarray(values, np.float64).ravel()
        x = x[np.isfinite(x)]
        if not x.size:
            return
        self.count += x.size
        self.total += float(x.sum())
        self.least, self.most = min(self.least, float(x.min())), max(self.most, float(x.max()))
        found, counts = np.unique(self.buckets_of(x), return_counts=True)
        for bucket, count in zip(found.tolist(), counts.tolist(), strict=True):
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def buckets_of(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """The bucket of each of finite values [N]."""
        magnitude = np.abs(values)
        powers = np.ceil(np.log(np.maximum(magnitude, SMALLEST)) / self._log - 1e-9) - self._offset
        found: NDArray[np.int64] = np.where(magnitude < SMALLEST, 0, np.sign(values) * powers).astype(np.int64)
        return found

    def middle(self, bucket: int) -> float:
        """The value that stands for all of a bucket's."""
        upper = math.exp((abs(bucket) + self._offset) * self._log)
        return math.copysign(2 * upper / (1 + self.growth), bucket) if bucket else 0.0

    def merge(self, other: "Sketch") -> None:
        """Add another sketch's values to this one's."""
        assert self.growth == other.growth, "sketches of different growth do not add up"
        self.count += other.count
        self.total += other.total
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    @property
    def mean(self) -> float:
        """Of all values; nan of none."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, q: float) -> float:
        """The value below which a share `q` of the values lies, within the sketch's accuracy; nan of none."""
        rank, seen = q * (self.count - 1), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen > rank:
                return min(max(self.middle(bucket), self.least), self.most)
        return math.nan

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        if not self.count:
            return {"growth": self.growth, "count": 0}
        return {
            "growth": self.growth,
            "count": self.count,
            "sum": self.total,
            "min": self.least,
            "max": self.most,
            "buckets": {str(bucket): self._buckets[bucket] for bucket in sorted(self._buckets)},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Sketch":
        """Read back what `to_json` gave."""
        sketch = cls(found["growth"])
        if found["count"]:
            sketch.count, sketch.total = found["count"], found["sum"]
            sketch.least, sketch.most = found["min"], found["max"]
            sketch._buckets = {int(bucket): count for bucket, count in found["buckets"].items()}
        return sketch
