"""The files of `recipes/gestures.yaml` beside what one would do without Limbeck, on the same people.

Needs the recipe's workspace (`LIMBECK_DATA=... make run RECIPE=gestures`). Everything is fitted on the training windows and
judged on the test windows: a random forest and a ridge classifier on statistics of each channel, a ridge classifier on random
kernels (Dempster et al. 2020, ROCKET), and ONNX Runtime's own quantization of the teacher. Bytes of what is no ONNX file are
those of its pickle. Times are of one window on one thread: of ONNX files in interleaved rounds, of the rest by a plain clock,
the making of features included.
"""

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import quantization as theirs

from benchmarks.places import ROOT
from limbeck import params as params_file
from limbeck.data.prepared import read
from limbeck.edge import measure as edge
from limbeck.evaluation import accuracy, estimate
from limbeck.export import run

WORKSPACE = ROOT / "work" / "gestures"
EXPORTED = {"teacher": "teacher", "ours, fp32": "model.fp32", "ours, int8": "model.int8"}
NUM_KERNELS, LENGTHS = 1000, (7, 9, 11)
LIMITS: dict[str, float] = {}

Series = NDArray[np.float32]


def statistics(x_NTC: Series) -> NDArray[np.float64]:
    """[N, 14 C]: of each channel mean, spread, quantiles, roughness, and the power of eight bands of its spectrum."""
    x = x_NTC.astype(np.float64)
    power = np.log1p(np.abs(np.fft.rfft(x - x.mean(1, keepdims=True), axis=1)) ** 2)
    bands = [band.mean(1) for band in np.array_split(power[:, 1:33], 8, axis=1)]
    quantiles = list(np.quantile(x, (0.05, 0.5, 0.95), axis=1))
    return np.concatenate([x.mean(1), x.std(1), *quantiles, np.abs(np.diff(x, axis=1)).mean(1), *bands], axis=1)


class Kernels:
    """Random convolutions, seeded: dilated, over some channels; of each answer its maximum and its share above zero."""

    def __init__(self, window: int, channels: int, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.made = []
        for _ in range(NUM_KERNELS):
            length = int(chance.choice(LENGTHS))
            own = chance.permutation(channels)[: int(chance.integers(1, channels + 1))]
            weights = chance.normal(size=(length, len(own)))
            dilation = int(2 ** chance.uniform(0, np.log2((window - 1) / (length - 1))))
            self.made.append((own, (weights - weights.mean(0)).astype(np.float32), dilation, chance.uniform(-1, 1)))

    def __call__(self, x_NTC: Series) -> NDArray[np.float64]:
        """[N, 2 NUM_KERNELS]."""
        found = []
        for own, weights, dilation, bias in self.made:
            room = x_NTC.shape[1] - dilation * (len(weights) - 1)
            taps = (x_NTC[:, d * dilation : d * dilation + room, own] @ weight for d, weight in enumerate(weights))
            answer = sum(taps) + bias
            found += [answer.max(1), (answer > 0).mean(1)]
        return np.stack(found, axis=1).astype(np.float64)


def classical(seed: int, train: Series) -> dict[str, tuple[Any, Callable[[Series], NDArray[np.float64]]]]:
    """Each one's classifier and features."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    spread = train.std((0, 1))
    kernels = Kernels(*train.shape[1:], seed)

    def ridge() -> Any:
        return make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-3, 4, 8)))

    return {
        "statistics, random forest": (RandomForestClassifier(200, random_state=seed, n_jobs=1), statistics),
        "statistics, ridge": (ridge(), statistics),
        "random kernels, ridge": (ridge(), lambda x: kernels(x / spread)),
    }


class _Calibration(theirs.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: Series) -> None:
        self.batches = iter([{"input": x[start : start + 1]} for start in range(len(x))])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.batches, None)


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Fit, quantize, judge; other `params` than the default's mean few windows."""
    exported = WORKSPACE / "export" / "watch"
    if not exported.is_dir():
        raise SystemExit(f"series: {exported} is missing; run `LIMBECK_DATA=... make run RECIPE=gestures` first.")
    quick = params != ROOT / "params.yaml"
    few = slice(None, None, 20 if quick else None)
    how = params_file.load(WORKSPACE / "params.yaml").measure.model_dump() | ({"rounds": 4} if quick else {})
    (train, y), (test, truth) = (
        tuple(np.asarray(array[few]) for array in read(WORKSPACE / "data", name)) for name in ("train", "test")
    )
    calibration = np.asarray(read(WORKSPACE / "data", "calibration")[0][few])
    result: dict[str, Any] = {
        "niceness": os.nice(0), "load": os.getloadavg()[0], "test_samples": len(truth), "seconds": {}, "ratios": {},
        "limits": LIMITS, "rows": {},
    }  # fmt: skip

    def judged(name: str, logits: NDArray[Any], num_bytes: int, p50_ms: float | None = None) -> None:
        quality = estimate(accuracy(logits, truth), how["bootstrap"], how["seed"])
        result["rows"][name] = {"quality": quality, "bytes": num_bytes, "p50_ms": p50_ms}

    files = {name: exported / f"{file}.onnx" for name, file in EXPORTED.items()}
    dynamic, static = place / "dynamic.onnx", place / "static.onnx"
    theirs.quantize_dynamic(files["teacher"], dynamic, weight_type=theirs.QuantType.QInt8)
    theirs.quantize_static(
        files["teacher"], static, _Calibration(calibration), quant_format=theirs.QuantFormat.QDQ, per_channel=True,
        activation_type=theirs.QuantType.QUInt8, weight_type=theirs.QuantType.QInt8, reduce_range=True,
    )  # fmt: skip
    files |= {"teacher, ONNX Runtime dynamic": dynamic, "teacher, ONNX Runtime static": static}
    answer = edge.measure(files, threads=1, batch_size=1, **how)
    for name, path in files.items():
        judged(name, run(path, test), path.stat().st_size, answer["variants"][name]["p50_ms"]["value"])
    for name, (classifier, features) in classical(how["seed"], train).items():
        started = time.perf_counter()
        classifier.fit(features(train), y)
        result["seconds"][f"{name}: fitted"] = time.perf_counter() - started
        scores = np.eye(int(y.max()) + 1)[classifier.predict(features(test))]
        times = []
        for window in test[: 20 if quick else 200, None]:
            started = time.perf_counter()
            classifier.predict(features(window))
            times.append(1000 * (time.perf_counter() - started))
        own = len(pickle.dumps(features.__closure__[0].cell_contents.made)) if features.__closure__ else 0
        judged(name, scores, len(pickle.dumps(classifier)) + own, float(np.median(times)))
    return result


def table(result: dict[str, Any]) -> str:
    """As docs/series.md shows it."""
    lines = ["| what | quality % [95 %] | bytes | p50 ms |", "|---|---|---|---|"]
    for name, row in result["rows"].items():
        value, low, high = (100 * row["quality"][key] for key in ("value", "low", "high"))
        lines.append(f"| {name} | {value:.1f} [{low:.1f}, {high:.1f}] | {row['bytes']:,} | {row['p50_ms']:.3f} |")
    return "\n".join(lines)
