"""The gate: is a challenger better where the champion was bad, and no worse elsewhere? Pure: scores in, a verdict out.

As with the contract (`limbeck/selection.py`), validation picks and test examines. A rung's challenger is held against the
champion on *validation*, old and new, sample by sample. The first that passes sits the exam on *test*, once. One that fails
it is refused, and no further rung is tried on that test set: the exam would then choose, and say nothing any more about
what it chose. New samples make a new exam.

Legend: N samples.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from limbeck.data.splits import SplitName, read, read_meta, read_origin
from limbeck.edge.session import open_session
from limbeck.errors import ContractBroken, DataError, ParamsError
from limbeck.evaluation import Estimate, Scores, is_played, paired_difference, scorer
from limbeck.params import Section, Share
from limbeck.selection import Clause, hold

OLD = 0
"""The origin of samples of the first champion's data; i is that of the i-th new window, -i of the i-th learned before."""
PARTS = ("window ", "learned ", "old, ", "new, ")
"""How rows are called in which nothing may be lost either: windows, new ones and such as were learned before, and classes."""
PREDICT_BATCH = 256


class GateRules(Section):
    """The values of the gate, as they stand in refresh.yaml:

        gate:
          min_gain: 0.01            # on the new windows, challenger less champion
          max_loss: 0.005           # on old samples, in any window and in any class
          gain: proven              # kept: the estimate does; proven: its 95 % bound does
          loss: kept
          min_class_samples: 1000
          bootstrap: 2000
          seed: 0

    A class or window with fewer than `min_class_samples` is judged by its interval: it speaks against a challenger only where even
    the bound that is in its favour loses more than `max_loss`. For of 100 samples one is a point, and among ten classes
    some would always have lost one. The interval is one for all such parts together (Bonferroni): with ten classes, old
    and new, one of 95 % each would refuse every sixth challenger that loses nothing. The estimate can tell `max_loss` where its standard error is smaller, about
    d / max_loss^2 samples when a share d of the answers differs: 1,000 for 0.005 and d = 0.025.
    """  # fmt: skip

    min_gain: Share
    max_loss: Share
    gain: Literal["kept", "proven"]
    loss: Literal["kept", "proven"]
    min_class_samples: PositiveInt
    bootstrap: PositiveInt
    seed: NonNegativeInt


@dataclass(frozen=True)
class Scored:
    """Champion and challenger on the same samples of one split.

    Attributes:
        champion, challenger: their scores [N], sample by sample (`limbeck.evaluation.Scores`).
        labels: class indices [N].
        origins: [N], 0 where a sample is old, i where it is of the i-th window, -i of the i-th that was learned before.
        classes: names.

    """

    champion: Scores
    challenger: Scores
    labels: NDArray[np.int64]
    origins: NDArray[np.integer[Any]]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        sizes = {len(array) for array in (self.champion, self.challenger, self.labels, self.origins)}
        assert len(sizes) == 1, "scores, labels and origins belong to the same samples"


@dataclass(frozen=True)
class Row:
    """A part of the samples: how good each is there, and the difference, challenger less champion."""

    name: str
    samples: int
    champion: float
    challenger: float
    difference: Estimate


@dataclass(frozen=True)
class Verdict:
    """Whether a challenger passes, clause by clause.

    Attributes:
        split: the samples that it was judged on.
        clauses: of the gate, then of the contract.
        broken: those of them that refuse it.
        rows: the figures by part: old, new, every window of now and before, every class.

    """

    split: str
    clauses: list[Clause]
    broken: list[Clause]
    rows: list[Row] = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether nothing refuses it."""
        return not self.broken

    @property
    def gain(self) -> float:
        """On the new samples, challenger less champion; nan of none."""
        return next(row.difference["value"] for row in self.rows if row.name == "new")

    def __str__(self) -> str:
        if self.passed:
            return f"passes on {self.split}: {self.clauses[0]}"
        if any(row.name == "new" and not row.samples for row in self.rows):
            return f"is refused on {self.split}: no new sample is among those of {self.split}; wait for more"
        return f"is refused on {self.split}: {'; '.join(map(str, self.broken))}"


def judge(
    scored: Scored,
    rules: GateRules,
    contract: Sequence[Clause],
    *,
    require: Literal["kept", "proven"] = "kept",
    split: str = "validation",
) -> Verdict:
    """Hold a challenger against the champion.

    Args:
        scored: both, on one split.
        rules: the gate's values.
        contract: the target's clauses, held against the challenger's file (`limbeck.selection.clauses_of`).
        require: what the contract asks for.
        split: what the samples are called.

    """
    new = scored.origins > OLD
    rows = list(_rows(scored, rules))
    by_name = {row.name: row for row in rows}
    gain = hold("min_gain", rules.min_gain, _bounds(by_name["new"].difference), f"{split}, new windows")
    losses = [_loss(by_name["old"], rules, split, is_small=False)] if (~new).any() else []
    losses += [
        _loss(row, rules, split, is_small=row.samples < rules.min_class_samples)
        for row in rows
        if row.name.startswith(PARTS)
    ]
    broken = [clause for clause in [gain] if not getattr(clause, rules.gain)]
    broken += [clause for clause in losses if not getattr(clause, rules.loss)]
    broken += [clause for clause in contract if not getattr(clause, require)]
    return Verdict(split, [gain, *losses, *contract], broken, rows)


def _loss(row: Row, rules: GateRules, split: str, *, is_small: bool) -> Clause:
    """The clause about what a part loses; that of a small one is broken, and not proven, by its whole interval alone."""
    lost = _bounds(row.difference)
    turned = {"value": -lost["value"], "low": -lost["high"], "high": -lost["low"]}
    clause = hold("max_loss", rules.max_loss, turned, f"{split}, {row.name}")
    if not is_small:
        return clause
    is_spared = turned["low"] <= rules.max_loss
    return replace(clause, kept=is_spared, proven=is_spared)


def _bounds(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate["value"], "low": estimate["low"], "high": estimate["high"]}


def _rows(scored: Scored, rules: GateRules) -> Iterator[Row]:
    """Old and new in all, each window of now and before, each class on either side. What has no sample has no row, but `new`.

    Intervals are of 95 %, those of small parts of 95 % for all of these together.
    """
    new = scored.origins > OLD
    if (~new).any():
        yield _row("old", ~new, scored, rules)
    yield _row("new", new, scored, rules)
    parts = {f"window {number}": scored.origins == number for number in np.unique(scored.origins[new])}
    parts |= {
        f"learned {-number}": scored.origins == number
        for number in np.unique(scored.origins[scored.origins < OLD])[::-1]
    }
    parts |= {
        f"{side}, {name}": mask & (scored.labels == index)
        for index, name in enumerate(scored.classes)
        for side, mask in (("old", ~new), ("new", new))
    }
    small = {name for name, chosen in parts.items() if 0 < chosen.sum() < rules.min_class_samples}
    for name, chosen in parts.items():
        if chosen.any():
            yield _row(name, chosen, scored, rules, level=1 - 0.05 / len(small) if name in small else 0.95)


def _row(name: str, mask: NDArray[np.bool_], scored: Scored, rules: GateRules, *, level: float = 0.95) -> Row:
    champion, challenger = scored.champion[mask], scored.challenger[mask]
    if not mask.any():
        nothing: Estimate = {"value": np.nan, "low": np.nan, "high": np.nan}
        return Row(name, 0, np.nan, np.nan, nothing)
    difference = paired_difference(challenger, champion, rules.bootstrap, rules.seed, level=level)
    return Row(name, int(mask.sum()), float(champion.mean()), float(challenger.mean()), difference)


def examine(
    scored: Scored,
    rules: GateRules,
    contract: Sequence[Clause],
    *,
    require: Literal["kept", "proven"],
    digest: str,
    sat: Collection[str],
) -> Verdict:
    """The exam of the challenger that validation picked, on test.

    Args:
        scored: champion and challenger on the test split.
        rules: the gate's values.
        contract: the clauses about quality, on test (`limbeck.selection.quality_clauses`).
        require: what the contract asks for.
        digest: of the data that hold this test split (`meta.json`).
        sat: digests of the data on which a challenger failed its exam before.

    Raises:
        ContractBroken: another one failed on these very samples.

    """
    if digest in sat:
        raise ContractBroken(
            f"a challenger was refused on this test set before (data {digest[:16]}...); no other is tried on it, because "
            "the exam would then choose. Wait for a new window, whose samples make another exam."
        )
    return judge(scored, rules, contract, require=require, split="test")


@dataclass(frozen=True)
class Staleness:
    """The teacher against the champion on new samples; `why` names a teacher that is out of date, else is empty."""

    lead: Estimate
    samples: int
    why: str


def staleness(teacher: Scores, champion: Scores, rules: GateRules) -> Staleness:
    """Whether a teacher is no better than the network it is to teach: surely leads by less than `min_gain`.

    Args:
        teacher: its scores [N] on new samples that *people* labelled: by its own labels it is always right.
        champion: the champion's on the same.
        rules: resamples and seed.

    Raises:
        DataError: there is no such sample.

    """
    if len(teacher) == 0:
        raise DataError("no new sample was labelled by people; whether the teacher is out of date cannot be told.")
    lead = paired_difference(teacher, champion, rules.bootstrap, rules.seed)
    why = ""
    if lead["value"] <= 0 and lead["high"] < rules.min_gain:  # of few samples a tie proves nothing
        why = (
            f"the teacher is out of date: on {len(teacher):,} new samples that people labelled it has "
            f"{teacher.mean():.1%}, the champion {champion.mean():.1%} "
            f"({100 * lead['value']:+.1f} points [{100 * lead['low']:.1f}, {100 * lead['high']:.1f}])"
        )
    return Staleness(lead, len(teacher), why)


def answered(file: Path, x: NDArray[Any], *, threads: int) -> Iterator[NDArray[np.float32]]:
    """An ONNX file's logits [B, K] for raw samples [N, ...], batch after batch."""
    session = open_session(file, threads)
    for start in range(0, len(x), PREDICT_BATCH):
        yield session.run(None, {"input": np.ascontiguousarray(x[start : start + PREDICT_BATCH])})[0]


def score_file(file: Path, data: Path, split: SplitName, metric: str, *, threads: int) -> Scores:
    """An ONNX file's scores [N] on a prepared split; memory holds one batch of samples and logits.

    Samples whose class the file does not know (a champion's, before it was added) score 0.

    Raises:
        DataError: the split is not what was prepared.
        ParamsError: the metric plays episodes.

    """
    if is_played(metric):
        raise ParamsError(
            f"metric {metric} plays episodes, while a refresh holds two files against each other sample by sample, old and "
            "new. Refresh a policy with metric: accuracy (agreement with the expert's actions), or make it anew where its "
            "world has changed."
        )
    x, y = read(data, split)
    score, scores = scorer(metric), np.zeros(len(y))
    for number, logits_BK in enumerate(answered(file, x, threads=threads)):
        batch = slice(number * PREDICT_BATCH, number * PREDICT_BATCH + len(logits_BK))
        labels = np.asarray(y[batch])
        known = labels < logits_BK.shape[1]
        if known.any():
            scores[batch][known] = score(logits_BK[known], labels[known])
    return scores


def score(champion: Path, challenger: Path, data: Path, split: SplitName, metric: str, *, threads: int) -> Scored:
    """Both exported files on one split of a refresh's data, which knows where each row came from.

    Raises:
        DataError: the split, or where its rows came from, is not what was prepared.

    """
    _, labels = read(data, split)
    origins = read_origin(data, split)
    scores = (score_file(file, data, split, metric, threads=threads) for file in (champion, challenger))
    return Scored(next(scores), next(scores), np.asarray(labels), origins, read_meta(data).classes)
