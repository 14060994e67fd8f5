"""Figures of what a pipeline measured, drawn from files alone; `report` shows them, `tracking` hangs them on runs."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = {"teacher": "D", "student": "o", "model.fp32": "s", "model.int8": "^"}
MOST_LABELLED = 20
"""Classes up to this many are named on the axes of a confusion matrix."""
MOST_DRAWN = 200
"""Of more classes a confusion matrix shows as many, those with the most samples; of catalogues of thousands, too."""


@dataclass(frozen=True)
class Point:
    """One measured file: quality in %, with its 95 % interval, over its size and its latency.

    Attributes:
        series: points of one target share a colour; the teacher, who belongs to all, is black and has none.
        variant: chooses the marker.

    """

    label: str
    series: str
    variant: str
    quality: float
    low: float
    high: float
    kilobytes: float
    milliseconds: float
    ships: bool


@dataclass(frozen=True)
class Panel:
    """What was, and what is: values [N] as a histogram, points [N, 2], or bars [K] with a name each."""

    title: str
    how: Literal["histogram", "points", "bars"]
    reference: NDArray[Any]
    window: NDArray[Any]
    names: Sequence[str] = ()


def png(figure: "Figure") -> bytes:
    """A figure as a PNG without a date in it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def pareto(points: Sequence[Point]) -> "Figure":
    """Quality against size and against latency, side by side, logarithmic."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = _figure(11, 4)
    panels = figure.subplots(1, 2, sharey=True)
    series = list(dict.fromkeys(point.series for point in points if point.series))
    for axes, unit in zip(panels, ("kB", "p50, ms"), strict=True):
        for point in points:
            axes.errorbar(
                point.kilobytes if unit == "kB" else point.milliseconds,
                point.quality,
                yerr=[[point.quality - point.low], [point.high - point.quality]],
                fmt=MARKERS[point.variant],
                color=f"C{series.index(point.series)}" if point.series else "black",
                markersize=13 if point.ships else 7,
                markeredgecolor="black" if point.ships else "none",
                capsize=3,
                elinewidth=1,
                label=f"{point.label} (ships)" if point.ships else point.label,
            )
        axes.set(xscale="log", xlabel=unit)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("quality on test, %")
    panels[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def front(trials: Sequence[Mapping[str, Any]]) -> "Figure":
    """Trials of a search (`validation`, `bytes`, `p50_ms`, `on_front`, `trial`): quality over size and over latency."""
    figure = _figure(11, 4)
    for axes, (key, unit, scale) in zip(
        figure.subplots(1, 2, sharey=True), (("bytes", "kB", 1000), ("p50_ms", "p50, ms", 1)), strict=True
    ):
        for is_best in (False, True):
            chosen = [trial for trial in trials if trial["on_front"] is is_best]
            axes.scatter(
                [trial[key] / scale for trial in chosen],
                [100 * trial["validation"] for trial in chosen],
                color="C0" if is_best else "lightgrey",
                label="on the front" if is_best else "beaten in all three",
                zorder=3 if is_best else 2,
            )
            for trial in chosen if is_best else []:
                place = (trial[key] / scale, 100 * trial["validation"])
                axes.annotate(str(trial["trial"]), place, xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set(xlabel=unit)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("quality on validation, %")
    figure.axes[1].legend(fontsize=8)
    return figure


def training(curves: Mapping[str, Path]) -> "Figure":
    """Quality on validation per epoch, a line for each file of curves (`epoch,validation,...`) and each arm in it."""
    figure = _figure(11, 4)
    axes = figure.subplots()
    for name, path in curves.items():
        arms: dict[str, list[tuple[float, float]]] = {}
        with path.open(encoding="utf-8", newline="") as stream:
            for line in csv.DictReader(stream):
                if line.get("validation"):
                    point = (float(line["epoch"]) + 1, 100 * float(line["validation"]))
                    arms.setdefault(line.get("arm") or "", []).append(point)
        for arm, points in arms.items():
            epochs, qualities = zip(*points, strict=True)
            label = " ".join(dict.fromkeys(filter(None, (name, arm))))
            axes.plot(epochs, qualities, marker="." if len(points) == 1 else None, label=label)
    axes.set(xlabel="epoch", ylabel="quality on validation, %")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=7, ncols=2)
    return figure


def confusion(path: Path, column: str) -> "Figure":
    """How often each class was taken for each: the columns `actual` and another one of a CSV of class names."""
    with path.open(encoding="utf-8", newline="") as stream:
        pairs = [(line["actual"], line[column]) for line in csv.DictReader(stream)]
    classes = sorted({name for pair in pairs for name in pair})
    num_classes = len(classes)
    if num_classes > MOST_DRAWN:
        common = Counter(actual for actual, _ in pairs).most_common(MOST_DRAWN)
        classes = sorted(name for name, _ in common)
        shown = set(classes)
        pairs = [pair for pair in pairs if shown.issuperset(pair)]
    place = {name: index for index, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), int)
    for actual, said in pairs:
        counts[place[actual], place[said]] += 1
    figure = _figure(5.5, 5)
    axes = figure.subplots()
    axes.imshow(np.log1p(counts), cmap="Blues")
    if len(classes) <= MOST_LABELLED:
        for row, at in zip(*np.nonzero(counts), strict=True):
            count = counts[row, at]
            color = "white" if count > counts.max() / 8 else "black"
            axes.text(at, row, str(count), ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="actual")
    if num_classes > MOST_DRAWN:
        axes.set_title(f"the {len(classes)} most frequent of {num_classes:,} classes", fontsize=9)
    return figure


def drift(panels: Sequence[Panel]) -> "Figure":
    """Reference against window, a panel each, side by side, three in a row."""
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = _figure(11 / 3 * columns, 3.2 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        if panel.how == "histogram":
            edges = np.histogram_bin_edges(np.concatenate([panel.reference, panel.window]), bins=30)
            for name, values, filled in (("reference", panel.reference, True), ("window", panel.window, False)):
                shares = np.full(len(values), 100 / len(values))
                axes.hist(values, edges, weights=shares, histtype="stepfilled" if filled else "step", label=name,
                          color="lightgrey" if filled else "C3")  # fmt: skip
            axes.set_ylabel("samples, %")
        elif panel.how == "points":
            for name, points, color in (("reference", panel.reference, "grey"), ("window", panel.window, "C3")):
                axes.scatter(points[:, 0], points[:, 1], s=6, color=color, alpha=0.5, label=name, linewidths=0)
        else:
            places = np.arange(len(panel.reference))
            axes.bar(places - 0.2, panel.reference, 0.4, color="lightgrey", label="reference")
            axes.bar(places + 0.2, panel.window, 0.4, color="C3", label="window")
            if len(places) <= MOST_LABELLED:
                axes.set_xticks(places, panel.names, rotation=0 if max(map(len, panel.names)) < 3 else 45)
        axes.set_title(panel.title, fontsize=10)
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.remove()
    grid[0].legend(fontsize=8)
    figure.tight_layout()
    return figure
