"""What one version did on this device: counts, latency, errors, confidence and what its inputs looked like.

`note` runs beside every inference and costs microseconds; `digest` does the arithmetic in the agent's own thread.
Legend: B batch, K classes.
"""

import contextlib
import threading
import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.edge.sketch import Sketch

MAX_WAITING = 512
"""Answers that await `digest`; beyond, the oldest are counted but not sketched."""
MAX_LOOKED = 32
MAX_ROWS = 16
"""Rows of a batch whose confidence is sketched."""
INPUT_EVERY_S = 0.1
"""Inputs are looked at so often at most: one sample each time, copied."""
MAX_BATCH_SIZES = 4
MAX_COLUMNS = 16
MAX_CLASSES = 100
INPUT_GROWTH = 1.25
"""Of the sketches of inputs and of confidence: what is compared with a report has to be rounded alike."""
CONFIDENCE_GROWTH = 1.02


def softmax(logits_BK: NDArray[Any]) -> NDArray[np.float64]:
    """Class probabilities [B, K]."""
    shifted = np.exp(logits_BK.astype(np.float64) - logits_BK.max(1, keepdims=True))
    found: NDArray[np.float64] = shifted / shifted.sum(1, keepdims=True)
    return found


def _taken(waiting: "deque[Any]") -> list[Any]:
    """What waits now, taken from a queue that others go on filling."""
    found = []
    with contextlib.suppress(IndexError):  # the oldest gave way meanwhile
        for _ in range(len(waiting)):
            found.append(waiting.popleft())
    return found


class Usage:
    """The record of one version, from one report to the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the counts: held for three additions
        self._digesting = threading.Lock()  # of the sketches: `note` never waits for it
        self._waiting: deque[tuple[int, int, NDArray[Any]]] = deque(maxlen=MAX_WAITING)
        self._looked: deque[tuple[NDArray[Any], NDArray[Any]]] = deque(maxlen=MAX_LOOKED)
        self._input_due = 0.0
        self.began = time.time()
        self.calls = self.samples = self.not_finite = 0
        self.errors: dict[str, int] = {}
        self.latency: dict[str, Sketch] = {}
        self.confidence = Sketch(CONFIDENCE_GROWTH)
        self.classes: dict[int, int] = {}
        self.inputs: dict[str, Sketch] = {}

    def note(self, elapsed_ns: int, batch: NDArray[Any], logits_BK: NDArray[Any]) -> None:
        """Count an answer; what it looked like waits for `digest`."""
        now = time.monotonic()
        with self._lock:
            self.calls += 1
            self.samples += len(batch)
            look = now >= self._input_due
            if look:
                self._input_due = now + INPUT_EVERY_S
        logits_BK = logits_BK[:MAX_ROWS].copy()
        self._waiting.append((elapsed_ns, len(batch), logits_BK))
        if look:
            self._looked.append((logits_BK[:1], batch[:1].copy()))  # the application may fill its buffer anew

    def note_error(self, kind: str) -> None:
        """Count an inference that raised."""
        with self._lock:
            self.errors[kind] = self.errors.get(kind, 0) + 1

    def digest(self) -> list[tuple[float, NDArray[Any]]]:
        """Work off what waits; returns the inputs looked at, [1, ...] each, with their confidence."""
        with self._digesting:
            return self._digest()

    def _digest(self) -> list[tuple[float, NDArray[Any]]]:
        by_size: dict[str, list[int]] = {}
        confidences = []
        for elapsed_ns, size, logits_BK in _taken(self._waiting):
            by_size.setdefault(self._size(size), []).append(elapsed_ns)
            finite = np.isfinite(logits_BK).all(1)
            self.not_finite += int((~finite).sum())
            if not finite.any():
                continue
            probabilities_BK = softmax(logits_BK[finite])
            confidences.append(probabilities_BK.max(1))
            if logits_BK.shape[1] <= MAX_CLASSES:
                for index in probabilities_BK.argmax(1).tolist():
                    self.classes[index] = self.classes.get(index, 0) + 1
        for known, times in by_size.items():
            self.latency[known].add(np.array(times) / 1e6)
        if confidences:
            self.confidence.add(np.concatenate(confidences))
        looked = []
        for logits_1K, sample in _taken(self._looked):
            for name, values in describe(sample).items():
                self.inputs.setdefault(name, Sketch(INPUT_GROWTH)).add(values)
            if np.isfinite(logits_1K).all():
                looked.append((float(softmax(logits_1K).max()), sample))
        return looked

    def _size(self, size: int) -> str:
        """The batch size under which latency is kept: its own for the first few seen."""
        known = str(size) if str(size) in self.latency or len(self.latency) < MAX_BATCH_SIZES else "other"
        self.latency.setdefault(known, Sketch())
        return known

    def report(self) -> dict[str, Any]:
        """The record as a report holds it."""
        with self._digesting:
            return self._report()

    def _report(self) -> dict[str, Any]:
        quantiles = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
        return {
            "from": self.began,
            "to": time.time(),
            "calls": self.calls,
            "samples": self.samples,
            "not_finite": self.not_finite,
            "errors": dict(self.errors),
            "latency_ms": {
                size: {**{name: sketch.quantile(q) for name, q in quantiles.items()}, "sketch": sketch.to_json()}
                for size, sketch in self.latency.items()
            },
            "confidence": self.confidence.to_json(),
            "predicted": {str(index): self.classes[index] for index in sorted(self.classes)},
            "inputs": {name: sketch.to_json() for name, sketch in self.inputs.items()},
        }


def describe(sample: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Statistics of one raw sample [1, ...]: per channel of an image, per feature of a short vector, else over all."""
    x = sample[0].astype(np.float64)
    if x.ndim == 1 and x.size <= MAX_COLUMNS:
        return {str(index): value for index, value in enumerate(x)}
    if x.ndim >= 2 and x.shape[-1] <= MAX_COLUMNS // 2:
        axes = tuple(range(x.ndim - 1))
        means, stds = x.mean(axes), x.std(axes)
        return {f"{name} {c}": found[c] for name, found in (("mean", means), ("std", stds)) for c in range(x.shape[-1])}
    return {"mean": x.mean(), "std": x.std(), "max": np.abs(x).max()}
