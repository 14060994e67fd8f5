"""Fresh copies of the project to measure in, how to time a command there, and what a result says of itself."""

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limbeck.edge.measure import machine

ROOT = Path(__file__).resolve().parents[1]


def copy(folder: Path, params: Path) -> Path:
    """A repository of its own with what git tracks or would track here, and a params file."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith("metrics/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copy2(params, folder / "params.yaml")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "as measured"]):
        subprocess.run(
            ["git", "-c", "user.name=b", "-c", "user.email=b@example.invalid", *command], cwd=folder, check=True
        )
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Nothing but the folder is written to, nobody is phoned."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PREFECT_", "LIMBECK_"))},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PREFECT_HOME": str(folder / ".prefect"),
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"),
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def timed(folder: Path, *command: str) -> float:
    """Wall seconds of a command that has to succeed."""
    started = time.perf_counter()
    done = subprocess.run([*command], cwd=folder, env=environment(folder), capture_output=True, text=True)
    wall = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return wall


def about(command: str) -> dict[str, Any]:
    """Commit, machine, command and date of a result."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else "none"

    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "-uno")),
        "machine": machine(),
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
