"""What a stage tells the world while it runs: a status file, a spool of events, a progress bar, curves.

No server is needed and none can fail a stage: events lie in `.limbeck/spool` until `limbeck.tracking`
replays them to MLflow.
"""

import csv
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel

from limbeck.atomic import replace, write_json

HOME = Path(".limbeck")
GROUP = "LIMBECK_GROUP"
"""Environment variable: the pipeline run that a stage belongs to. Without it, the dvc process above names it."""

STATUS_EVERY_S = 0.5
KEY = re.compile(r"-[^-]+")
"""What follows the stage in the name of its scratch folder. A target's own name may hold dashes."""


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested sections and mappings as dotted keys and plain values."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value}


def numbers(figures: dict[str, Any]) -> dict[str, float]:
    """The numeric ones of `figures`, flattened."""
    return {key: float(value) for key, value in flatten(figures).items() if isinstance(value, int | float)}


def _group() -> str:
    if named := os.environ.get(GROUP):
        return named
    for parent in psutil.Process().parents():
        try:
            if any(Path(word).name == "dvc" for word in parent.cmdline()[:3]):  # [python [-m]] dvc ...
                return f"dvc-{parent.pid}-{int(parent.create_time())}"
        except psutil.Error:
            continue
    return f"alone-{os.getpid()}-{int(time.time())}"


class Report:
    """One run of one stage.

    Attributes:
        scratch: a folder that survives a kill and is removed by success.
        spool: the file of this run's events; its name identifies the run in MLflow.
        group: the pipeline run that this one belongs to.

    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.group = _group()
        self.scratch = HOME / "scratch" / stage
        self.started = datetime.now(UTC)
        self._clock = time.monotonic()
        self._status_at = 0.0
        self._progress: dict[str, Any] | None = None
        self._rows: list[dict[str, float | str]] = []
        self._bar: Any = None
        self._endings: list[Callable[[], None]] = []
        stamp = self.started.strftime("%Y%m%dT%H%M%S%f")
        self.spool = HOME / "spool" / f"{stage}-{stamp}-{os.getpid()}.jsonl"

    def begin(self, sections: dict[str, Any], scratch_key: str) -> None:
        """Announce the stage with the values it was given; what `scratch_key` left behind is there again."""
        self.scratch = HOME / "scratch" / f"{self.stage}-{scratch_key}"
        for stale in self.scratch.parent.glob(f"{self.stage}-*"):
            if stale != self.scratch and KEY.fullmatch(stale.name.removeprefix(self.stage)):
                shutil.rmtree(stale, ignore_errors=True)
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._write_status("running")
        event: dict[str, Any] = {
            "event": "begin",
            "stage": self.stage,
            "target": self.stage.partition("@")[2] or None,
            "group": self.group,
            "started": self.started.isoformat(),
            "params": flatten(sections),
        }
        if self.stage != "prepare":
            # What is missing or damaged is for the stage itself to say.
            with suppress(OSError, ValueError, KeyError, TypeError):
                described = json.loads(Path("data/meta.json").read_text(encoding="utf-8"))
                event["dataset"] = {"digest": described["digest"], "name": described["name"]}
        self._event(event)

    def progress(self, done: int, total: int, note: str = "") -> None:
        """So many of so many steps: into the status file twice a second, onto a bar where a person looks."""
        self._progress = {"done": done, "total": total, "note": note}
        if sys.stderr.isatty():
            self._show(done, total, note)
        if time.monotonic() - self._status_at > STATUS_EVERY_S:
            self._write_status("running")

    def log(self, message: str) -> None:
        """Print a line."""
        print(message, flush=True)

    def warn(self, message: str) -> None:
        """Print a line that asks for attention; the stage goes on."""
        print(f"{self.stage}: warning: {message}", file=sys.stderr, flush=True)

    def curve(self, row: dict[str, float | str]) -> None:
        """Record the figures of one epoch; `arm` names the training they belong to."""
        self._rows.append(row)
        arm = f"{row['arm']}/" if "arm" in row else ""
        values = {arm + key: value for key, value in row.items() if isinstance(value, int | float) and key != "epoch"}
        step = int(row.get("epoch", len(self._rows) - 1))
        self._event({"event": "metric", "step": step, "time_ms": time.time_ns() // 1_000_000, "values": values})

    def artifact(self, path: Path) -> None:
        """Record a file as belonging to this run."""
        self._event({"event": "artifact", "path": str(path)})

    def when_ended(self, action: Callable[[], None]) -> None:
        """Have `action` called once everything about this run is on disk, success or not. It must not raise."""
        self._endings.append(action)

    def write_curves(self, path: Path) -> None:
        """Write every row so far as CSV."""
        columns = list(dict.fromkeys(key for row in self._rows for key in row)) or ["epoch", "validation"]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        with replace(path) as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")

    def done(self, figures: dict[str, Any]) -> None:
        """Close the stage: its outs are in place."""
        self._close()
        self._event({"event": "end", "outcome": "done", "seconds": self._seconds(), "metrics": numbers(figures)})
        self._write_status("done")
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._end()

    def failed(self, error: BaseException, message: str, exit_code: int) -> int:
        """Say why, once, on stderr; keep scratch; hand the exit code back."""
        self._close()
        print(f"{self.stage}: {message}", file=sys.stderr, flush=True)
        with suppress(OSError):  # a disk that is full must not hide why the stage failed
            self._write_status("failed", type(error).__name__, message, exit_code)
            if self.spool.exists():  # else it failed before it began: no run to record
                self._event({"event": "end", "outcome": "failed", "seconds": self._seconds(), "message": message})
        self._end()
        return exit_code

    def _seconds(self) -> float:
        return round(time.monotonic() - self._clock, 3)

    def _write_status(
        self, outcome: str, error: str | None = None, message: str | None = None, exit_code: int | None = None
    ) -> None:
        self._status_at = time.monotonic()
        status = {
            "stage": self.stage,
            "outcome": outcome,
            "error": error,
            "exit_code": exit_code,
            "message": message,
            "seconds": self._seconds(),
            "started": self.started.isoformat(),
            "pid": os.getpid(),
            "progress": self._progress,
        }
        write_json(HOME / "status" / f"{self.stage}.json", status)

    def _event(self, event: dict[str, Any]) -> None:
        self.spool.parent.mkdir(parents=True, exist_ok=True)
        with self.spool.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")

    def _show(self, done: int, total: int, note: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(self.stage, total=total)
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, description=f"{self.stage} {note}")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _end(self) -> None:
        for action in self._endings:
            action()
