"""A first run: what DVC and the flow add to the stages' own work, and what side by side gains."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.places import copy, timed

NAMES = ("prepare", "teacher", "label", "distill", "prune", "quantize", "export", "benchmark", "register")
LIMITS = {"dvc_over_stages": 1.10, "serial_flow_over_dvc": 1.10}


def own_work_s(folder: Path) -> dict[str, float]:
    """What each stage measured of itself: from its first line of our code to its last."""
    files = sorted((folder / ".limbeck/status").glob("*.json"))
    return {path.stem: float(json.loads(path.read_text())["seconds"]) for path in files}


def process_starts_s(folder: Path) -> dict[str, float]:
    """Seconds until a stage's process has imported itself: `python -m stages NAME --help`, best of three."""
    start = (sys.executable, "-m", "stages")
    return {name: min(timed(folder, *start, name, "--help") for _ in range(3)) for name in NAMES}


def server_start_s(folder: Path) -> float:
    """Prefect's server with a new database: a flow that finds nothing to do, less its plan and its report."""
    flow = (sys.executable, "-m", "flows.compress")
    shutil.rmtree(folder / ".prefect")
    return timed(folder, *flow) - timed(folder, *flow, "--dry-run") - timed(folder, "limbeck", "report")


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Run `dvc repro`, the flow in series and the flow side by side, each in a fresh copy."""
    dvc, serial, beside = (copy(place / name, params) for name in ("cold", "serial", "beside"))
    flow = (sys.executable, "-m", "flows.compress")
    dvc_s = timed(dvc, "dvc", "repro")
    work = own_work_s(dvc)
    starts = process_starts_s(dvc)
    started = sum(starts[stage.split("@")[0]] for stage in work)
    serial_s, beside_s = timed(serial, *flow, "--serial"), timed(beside, *flow)
    server = server_start_s(serial)
    return {
        "seconds": {
            "dvc repro": dvc_s,
            "stages' own work": sum(work.values()),
            "process starts": started,
            "flow --serial": serial_s,
            "flow": beside_s,
            "Prefect's server": server,
        },
        "own_work_s": work,
        "process_starts_s": starts,
        "ratios": {
            "dvc_over_stages": dvc_s / (sum(work.values()) + started),
            "serial_flow_over_dvc": (serial_s - server) / dvc_s,
            "serial_flow_over_flow": serial_s / beside_s,
            "process_starts_share": started / dvc_s,
        },
        "limits": LIMITS,
    }
