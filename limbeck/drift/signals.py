"""What of a set of samples is compared: six kinds of figures, each per sample, as plain arrays.

    inputs       statistics of the raw sample, the very ones that devices sketch (`limbeck.edge.usage.describe`), and the
                 sample itself, made coarse, for changes that leave mean and spread as they are (a rotation)
    embeddings   what enters the student's head
    confidence   the largest softmax probability
    prior        the class that is predicted
    agreement    whether student and teacher predict the same class
    accuracy     whether the student is right, where people labelled the sample

Legend: N samples, B batch, D dimensions, K classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from limbeck.drift.two_samples import Values, subsample
from limbeck.edge.sketch import Sketch
from limbeck.edge.usage import CONFIDENCE_GROWTH, INPUT_GROWTH, describe, softmax
from limbeck.errors import DataError

if TYPE_CHECKING:
    from torch import nn

Kind: TypeAlias = Literal["inputs", "embeddings", "confidence", "prior", "agreement", "accuracy"]

SIDE = 8
"""Cells per side of an image made coarse."""
MOST_CELLS = 64
"""Cells of any other sample made coarse."""
MOST_DRAWN_FROM = 10**9
"""Numpy draws without replacement from fewer; from so many it makes no difference."""


@dataclass(frozen=True)
class Signals:
    """Figures of N samples in the order in which they arrived. What is None is not compared.

    Attributes:
        inputs: per statistic its values [N].
        coarse_ND: the samples themselves, made coarse.
        embeddings_ND: penultimate features.
        confidence_N: 0 to 1.
        predicted_N: class index.
        agreement_N: 1 where student and teacher agree, else 0.
        correct_N: 1 where the student is right, 0 where it is wrong, nan where nobody labelled the sample.

    Of devices' reports the arrays have different lengths: devices tell of other samples in each.

    """

    inputs: Mapping[str, Values]
    coarse_ND: NDArray[np.float32] | None = None
    embeddings_ND: NDArray[np.float32] | None = None
    confidence_N: Values | None = None
    predicted_N: NDArray[np.int64] | None = None
    agreement_N: Values | None = None
    correct_N: Values | None = None

    @property
    def count(self) -> int:
        """Samples: the least of any kind, labels aside, that may come later."""
        return min((len(values) for name, values in self._arrays() if name != "correct_N"), default=0)

    @property
    def labelled(self) -> Values | None:
        """[n] of `correct_N`, without the samples that nobody labelled; None where none is left."""
        if self.correct_N is None:
            return None
        known: Values = self.correct_N[np.isfinite(self.correct_N)]
        return known if known.size else None

    def take(self, rows: NDArray[np.int64]) -> "Signals":
        """The same figures of these samples; arrays of one length only."""
        chosen = {name: values[rows] for name, values in self._arrays() if not name.startswith("inputs ")}
        return replace(self, inputs={name: values[rows] for name, values in self.inputs.items()}, **chosen)

    def at_most(self, most: int, seed: int) -> "Signals":
        """Each array subsampled to `most`, those of one length alike."""

        def fewer(values: NDArray[Any]) -> NDArray[Any]:
            return values[subsample(len(values), most, seed)]

        chosen = {name: fewer(values) for name, values in self._arrays() if not name.startswith("inputs ")}
        return replace(self, inputs={name: fewer(values) for name, values in self.inputs.items()}, **chosen)

    def _arrays(self) -> list[tuple[str, NDArray[Any]]]:
        named = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "inputs"]
        return [(f"inputs {name}", values) for name, values in self.inputs.items()] + [
            (name, values) for name, values in named if values is not None
        ]


def both(kind: Kind, reference: Signals, window: Signals) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """The two arrays of a kind, None where either has none; of inputs the samples made coarse."""

    def of(signals: Signals) -> NDArray[Any] | None:
        found: dict[Kind, NDArray[Any] | None] = {
            "inputs": signals.coarse_ND,
            "embeddings": signals.embeddings_ND,
            "confidence": signals.confidence_N,
            "prior": signals.predicted_N,
            "agreement": signals.agreement_N,
            "accuracy": signals.labelled,
        }
        return found[kind]

    before, after = of(reference), of(window)
    return None if before is None or after is None else (before, after)


def class_counts(predicted_N: NDArray[np.int64], others_M: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Two rows [K] of counts per class."""
    num = int(max(predicted_N.max(), others_M.max())) + 1
    return [np.bincount(predicted, minlength=num) for predicted in (predicted_N, others_M)]


def joined(parts: Sequence[Signals]) -> Signals:
    """Several after one another; all of them have the same kinds."""
    arrays = {
        field.name: None
        if getattr(parts[0], field.name) is None
        else np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Signals)
        if field.name != "inputs"
    }
    names = parts[0].inputs
    return Signals(inputs={name: np.concatenate([part.inputs[name] for part in parts]) for name in names}, **arrays)


def coarse(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Raw samples [B, ...] as vectors [B, D] of means over blocks: 8x8 of each channel, or 64 of a series."""
    small = samples.astype(np.float32)
    is_image = samples.ndim >= 3
    for axis in range(1, samples.ndim - 1 if is_image else samples.ndim):
        size, most = samples.shape[axis], SIDE if is_image else MOST_CELLS
        if size > most:
            starts = np.arange(most) * size // most
            widths = np.diff(np.append(starts, size)).reshape([-1 if at == axis else 1 for at in range(samples.ndim)])
            small = (np.add.reduceat(small, starts, axis=axis) / widths).astype(np.float32)
    return small.reshape(len(samples), -1)


def statistics(samples: NDArray[Any]) -> dict[str, Values]:
    """Per statistic its values [N] of raw samples [N, ...], as a device computes them."""
    rows = [describe(samples[index : index + 1]) for index in range(len(samples))]
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}


def answers(
    logits_NK: NDArray[Any], teacher_NK: NDArray[Any] | None = None, labels_N: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """What the student's logits, beside the teacher's and people's labels, say: keywords of `Signals`.

    Args:
        logits_NK: the student's.
        teacher_NK: the teacher's for the same samples; its classes are the student's.
        labels_N: class index, -1 where nobody labelled the sample. Only labels by people, those of the teacher would make
            accuracy a copy of agreement; and only of samples chosen by chance: who labels mistakes only sees accuracy fall.

    """
    predicted_N = logits_NK.argmax(1).astype(np.int64)
    found: dict[str, Any] = {"confidence_N": softmax(logits_NK).max(1), "predicted_N": predicted_N}
    if teacher_NK is not None:
        found["agreement_N"] = (predicted_N == teacher_NK.argmax(1)).astype(np.float64)
    if labels_N is not None:
        found["correct_N"] = np.where(labels_N < 0, np.nan, predicted_N == labels_N)
    return found


def signals_of(
    student: "nn.Module",
    samples: NDArray[Any],
    *,
    teacher: "nn.Module | None",
    labels_N: NDArray[np.int64] | None,
    max_samples: int,
    batch_size: int,
    seed: int,
) -> Signals:
    """All kinds for raw samples [N, ...], memory-mapped or not: a seeded choice of at most `max_samples` is read, batch by batch.

    Args:
        student: raw samples [B, ...] -> logits [B, K].
        samples: raw.
        teacher: likewise, of the same classes; None: no agreement.
        labels_N: by people, -1: no label; None: no accuracy.
        max_samples: the most that are looked at.
        batch_size: of a forward pass.
        seed: of the choice.

    Raises:
        DataError: samples or answers that are not finite.

    """
    rows = subsample(len(samples), max_samples, seed)
    batches = (np.array(samples[rows[start : start + batch_size]]) for start in range(0, len(rows), batch_size))
    inputs, coarses, logits, features, teachers = [], [], [], [], []
    for batch in batches:
        inputs.append(statistics(batch))
        coarses.append(coarse(batch))
        logits_BK, features_BD = _forward(student, batch)
        logits.append(logits_BK)
        features.append(features_BD)
        if teacher is not None:
            teachers.append(_forward(teacher, batch)[0])
    if not logits:
        raise DataError("no samples to compare; expected at least one.")
    answered = answers(
        np.concatenate(logits),
        np.concatenate(teachers) if teachers else None,
        None if labels_N is None else np.asarray(labels_N)[rows],
    )
    found = Signals(
        inputs={name: np.concatenate([part[name] for part in inputs]) for name in inputs[0]},
        coarse_ND=np.concatenate(coarses),
        embeddings_ND=np.concatenate([part for part in features if part is not None])
        if features[0] is not None
        else None,
        **answered,
    )
    for name, values in found._arrays():
        if name != "correct_N" and not np.isfinite(values).all():
            raise DataError(
                f"{name.removesuffix('_ND').removesuffix('_N')}: values that are not finite; "
                "set the window aside, or look at the network that answered it."
            )
    return found


def _forward(network: "nn.Module", batch: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Logits [B, K] and features [B, D] of one batch."""
    from limbeck.models.features import tapped
    from limbeck.prediction import predict

    with tapped(network) as tap:
        logits_BK = predict(network, batch, len(batch))
    features = tap.features
    return logits_BK, None if features is None else features.float().cpu().numpy()


# What devices tell: sketches, and counts of predicted classes.


class _Sketched(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    growth: float
    count: Annotated[int, Field(ge=0, le=10**15)]
    buckets: dict[Annotated[str, Field(pattern=r"^-?\d{1,6}$")], Annotated[int, Field(gt=0, le=10**15)]] = {}


class _Told(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    confidence: _Sketched
    predicted: dict[Annotated[str, Field(pattern=r"^\d{1,6}$")], Annotated[int, Field(gt=0, le=10**15)]]
    inputs: dict[str, _Sketched]


def told(reports: Iterable[Mapping[str, Any]], max_samples: int, seed: int) -> Signals:
    """What devices' reports of use (`limbeck.edge.usage.Usage.report`) tell together: inputs, confidence and prior.

    Compare with `as_told` of the reference. A device counts in proportion to what it answered, and nobody checks what it
    says: a few that lie move the sum. Such a window is a reason to ask for samples, it proves nothing.

    Args:
        reports: parsed JSON.
        max_samples: what is counted is drawn anew, by seed, where it is more.
        seed: of that.

    Raises:
        DataError: a report that is not one.

    """
    confidence: dict[int, int] = {}
    predicted: dict[int, int] = {}
    inputs: dict[str, dict[int, int]] = {}
    for report in reports:
        try:
            said = _Told.model_validate(dict(report))
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                f"a device's report: {'.'.join(map(str, first['loc']))}: {first['msg']}; leave that file out."
            ) from None
        _add(confidence, said.confidence, CONFIDENCE_GROWTH)
        for label, count in said.predicted.items():
            predicted[int(label)] = predicted.get(int(label), 0) + count
        for name, sketched in said.inputs.items():
            _add(inputs.setdefault(name, {}), sketched, INPUT_GROWTH)
    generator = np.random.default_rng(seed)

    def spread(counts: Mapping[float, int]) -> Values | None:
        return _spread(counts, max_samples, generator) if counts else None

    classes = spread({float(label): count for label, count in predicted.items()})
    return Signals(
        inputs={
            name: _spread(_middles(counts, INPUT_GROWTH), max_samples, generator) for name, counts in inputs.items()
        },
        confidence_N=spread(_middles(confidence, CONFIDENCE_GROWTH)),
        predicted_N=None if classes is None else classes.astype(np.int64),  # of many classes devices count none
    )


def as_told(reference: Signals) -> Signals:
    """A reference as devices would tell it: the kinds that they tell, rounded to the buckets of their sketches."""
    return Signals(
        inputs={name: _rounded(values, INPUT_GROWTH) for name, values in reference.inputs.items()},
        confidence_N=None if reference.confidence_N is None else _rounded(reference.confidence_N, CONFIDENCE_GROWTH),
        predicted_N=reference.predicted_N,
    )


def _add(counts: dict[int, int], sketched: _Sketched, growth: float) -> None:
    if sketched.growth != growth:
        raise DataError(
            f"a device's report: a sketch of growth {sketched.growth:g}, expected {growth:g}; leave that file out."
        )
    for bucket, count in sketched.buckets.items():
        counts[int(bucket)] = counts.get(int(bucket), 0) + count


def _middles(counts: Mapping[int, int], growth: float) -> dict[float, int]:
    sketch = Sketch(growth)
    try:
        return {sketch.middle(bucket): count for bucket, count in counts.items()}
    except OverflowError:
        raise DataError("a device's report: a bucket beyond all numbers; leave that file out.") from None


def _rounded(values: Values, growth: float) -> Values:
    sketch = Sketch(growth)
    return np.array([sketch.middle(bucket) for bucket in sketch.buckets_of(values).tolist()])


def _spread(counts: Mapping[float, int], most: int, generator: np.random.Generator) -> Values:
    """Every value as often as it was counted, in no order; of more than `most`, so many of them.

    None is drawn twice: with replacement, of hardly more than `most`, the draws would scatter more than tests believe.
    """
    values, total = sorted(counts), sum(counts.values())
    times: Sequence[int] | NDArray[np.int64] = [counts[value] for value in values]
    if total > most:
        is_vast = total >= MOST_DRAWN_FROM
        shares = np.array(times, np.float64) / total
        times = (
            generator.multinomial(most, shares)
            if is_vast
            else generator.multivariate_hypergeometric(times, most, method="marginals")
        )
    return generator.permutation(np.repeat(np.array(values, np.float64), times))
