"""What Optuna's sampler finds beside a random search of as many trials, and that a killed search loses nothing.

Both search the same space of the same workspace, from the same prepared data, teacher and soft labels. The first is killed in
a trial (its whole process group, by SIGKILL) and goes on with the same command. A front of three figures is one number by the
share of a box that it dominates: quality on validation, bytes and p50 between the worst and the best that either search met,
bytes and p50 by their logarithms. With $LIMBECK_PLACE everything is made there, kept, and gone on with.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.places import copy, environment, timed
from limbeck import params as params_file

TRIALS = 24
TOLD_AFTER = (6, 12, 18, 24)
KILLED_AFTER = 5
"""Trials that are done when the first search is killed in the next."""
POINTS = 200_000
"""Drawn from the box."""


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Search twice."""
    folder = Path(os.environ.get("LIMBECK_PLACE", place)).resolve() / "search"
    if not folder.exists():
        copy(folder, params)
    loaded = params_file.load(params)
    target = list(loaded.targets)[-1]
    is_quick = loaded.name == "tiny"
    trials, killed_after = (3, 1) if is_quick else (TRIALS, KILLED_AFTER)
    timed(folder, "dvc", "repro", "label")
    fronts, seconds = dict[str, Path](), dict[str, float]()
    for sampler in ("tpe", "random"):
        fronts[sampler] = folder / f"work/search/{loaded.name}-{target}-{sampler}/front.json"
        command = (sys.executable, "-m", "flows.search", target, "--trials", str(trials), "--sampler", sampler)
        started = time.perf_counter()
        if sampler == "tpe" and len(done(fronts[sampler])) <= killed_after:
            kill_in_trial(folder, fronts[sampler], killed_after, command)
        timed(folder, *command)
        seconds[sampler] = time.perf_counter() - started
    found = {sampler: done(path) for sampler, path in fronts.items()}
    points = in_box({sampler: [figures(row) for row in rows] for sampler, rows in found.items()})
    after = sorted({min(number, trials) for number in TOLD_AFTER})
    return {
        "target": target,
        "trials": trials,
        "killed in trial": killed_after,
        "seconds": seconds,
        "ratios": {},
        "limits": {},
        "dominated": {
            sampler: {str(number): dominated(of[: number]) for number in after} for sampler, of in points.items()
        },
        "fronts": {sampler: [row for row in rows if row["on_front"]] for sampler, rows in found.items()},
    }  # fmt: skip


def done(front: Path) -> list[dict[str, Any]]:
    """Trials that came through, in their order."""
    rows: list[dict[str, Any]] = json.loads(front.read_text(encoding="utf-8"))["trials"] if front.exists() else []
    return rows


def kill_in_trial(folder: Path, front: Path, after: int, command: Sequence[str]) -> None:
    """Run a search until `after` trials are done and the next has begun to train; kill everything that it started."""
    status = front.parent / f"{after:03d}/.limbeck/status"
    with subprocess.Popen(command, cwd=folder, env=environment(folder), start_new_session=True) as process:
        while not any(status.glob("distill*.json")):
            if process.poll() is not None:
                raise SystemExit(f"the search ended before trial {after} began to train")
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)


def figures(row: dict[str, Any]) -> tuple[float, float, float]:
    """What is lost: all three are the better the smaller."""
    return -row["validation"], float(np.log(row["bytes"])), float(np.log(row["p50_ms"]))


def in_box(figures_of: dict[str, list[tuple[float, float, float]]]) -> dict[str, NDArray[np.float64]]:
    """Figures [N, 3] between 0, the best that any search met, and 1, the worst."""
    everything = np.array([each for rows in figures_of.values() for each in rows])
    low, span = everything.min(0), np.maximum(np.ptp(everything, axis=0), 1e-12)
    return {name: (np.array(rows) - low) / span for name, rows in figures_of.items()}


def dominated(losses_N3: NDArray[np.float64]) -> float:
    """The share of the box in which some trial is better in everything (Zitzler and Thiele 1999: hypervolume), drawn."""
    points_P3 = np.random.default_rng(0).random((POINTS, 3))
    beaten_P = np.zeros(POINTS, bool)
    for loss_3 in losses_N3:
        beaten_P |= (points_P3 > loss_3).all(1)
    return float(beaten_P.mean())


def table(result: Any) -> str:
    """Two tables in Markdown: how much of the box is dominated after how many trials, and both fronts."""
    of = result["dominated"]
    counts = list(of["tpe"])
    lines = [
        f"| share of the box after | {' | '.join(f'{count} trials' for count in counts)} |",
        "|---" * (len(counts) + 1) + "|",
    ]
    lines += [f"| `{name}` | {' | '.join(f'{100 * of[name][count]:.1f} %' for count in counts)} |" for name in of]
    lines += ["", "| front of | trial | validation % | bytes | p50 ms |", "|---|---|---|---|---|"]
    lines += [
        f"| `{name}` | {row['trial']} | {100 * row['validation']:.1f} | {row['bytes']:,.0f} | {row['p50_ms']:.3f} |"
        for name, rows in result["fronts"].items()
        for row in sorted(rows, key=lambda row: float(row["bytes"]))
    ]
    return "\n".join(lines)
