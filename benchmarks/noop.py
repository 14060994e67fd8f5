"""Nothing changed: `dvc repro` here beside DVC's own no-op on a bare pipeline of as many stages and edges."""

import statistics
import subprocess
from pathlib import Path
from typing import Any

import yaml

from benchmarks.places import copy, environment, timed

LIMITS = {"ours_over_bare": 1.5}
REPEATS = 9


def bare(folder: Path, lock: dict[str, Any]) -> Path:
    """A repository whose pipeline has the stages, dependencies, params and outs of a dvc.lock, but small files."""
    folder.mkdir(parents=True)
    outs = {out["path"] for entry in lock["stages"].values() for out in entry.get("outs", [])}
    stages: dict[str, Any] = {}
    values: dict[str, int] = {}
    for name, entry in lock["stages"].items():
        deps = [dep["path"] for dep in entry["deps"]]
        for path in set(deps) - outs:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if (folder / path).suffix:
                (folder / path).write_text(path)
            else:
                (folder / path).mkdir(exist_ok=True)
                (folder / path / "file").write_text(path)
        made = [out["path"] for out in entry.get("outs", [])]
        params = [f"{name.replace('@', '_')}_{i}" for i, _ in enumerate(entry.get("params", {}).get("params.yaml", {}))]
        values |= dict.fromkeys(params, 1)
        writes = " && ".join(f"mkdir -p $(dirname {path}) && echo {name} > {path}" for path in made)
        stages[name.replace("@", "_")] = {"cmd": writes, "deps": deps, "outs": made, "params": params}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True, env=environment(folder))
    timed(folder, "dvc", "repro")
    return folder


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Interleaved repeats of both, in copies that are up to date."""
    ours = place / "cold"  # what that benchmark leaves is up to date
    if not (ours / "dvc.lock").exists():
        ours = copy(place / "noop", params)
        timed(ours, "dvc", "repro")
    theirs = bare(place / "bare", yaml.safe_load((ours / "dvc.lock").read_text()))
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(REPEATS):
        times["ours"].append(timed(ours, "dvc", "repro"))
        times["bare"].append(timed(theirs, "dvc", "repro"))
    ratios = [mine / other for mine, other in zip(times["ours"], times["bare"], strict=True)]
    return {
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "all_seconds": times,
        "ratios": {"ours_over_bare": statistics.median(ratios)},
        "spread": {"ours_over_bare": [min(ratios), max(ratios)]},
        "limits": LIMITS,
    }
