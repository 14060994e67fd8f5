"""An arm: a process of its own that is told what to measure, measures it and answers."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.places import ROOT, environment
from limbeck.edge.measure import peak_memory_mb


def run(python: str | Path, module: str, spec: Path) -> dict[str, Any]:
    """Run `python -m module SPEC ANSWER` and read what it measured."""
    data = {"LIMBECK_DATA": os.environ["LIMBECK_DATA"]} if "LIMBECK_DATA" in os.environ else {}
    answer = spec.with_name(f"{module.rpartition('.')[2]}-{spec.name}")
    done = subprocess.run(
        [python, "-m", module, spec, answer], cwd=spec.parent,
        env={**environment(spec.parent), **data, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{module} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def read_spec() -> tuple[dict[str, Any], Path]:
    """What this arm is told, and the folder that all arms share."""
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return spec, Path(spec["place"])


def done(**figures: Any) -> None:
    """Answer what was measured, and this process's peak."""
    Path(sys.argv[2]).write_text(json.dumps({**figures, "peak_mb": peak_memory_mb()}), encoding="utf-8")


class Told:
    """Whom a training reports to: notes when steps and epochs end."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.steps: list[float] = []
        self.epochs: list[float] = []
        self.validation: list[float] = []

    def progress(self, done: int, total: int, note: str = "") -> None:
        """A step has ended."""
        self.steps.append(time.perf_counter())

    def curve(self, row: dict[str, float | str]) -> None:
        """An epoch has ended, its validation included."""
        self.epochs.append(time.perf_counter())
        self.validation.append(float(row["validation"]))

    def log(self, message: str) -> None:
        """A line."""
        print(message)

    warn = log
