"""The environment of everything a flow starts: at home in the project's folder, silent towards the outside."""

import os
import sys
from pathlib import Path

from limbeck.watch import WATCH

ROOT = Path(__file__).resolve().parents[1]

SILENT = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Telemetry, off in everything we start."""


POOL = "limbeck"
"""The work pool of prefect.yaml."""

DROP = "drop"
"""The folder of a workspace in which new data lands."""

LOST_S = 120.0
"""A run that said nothing for so long, four heartbeats, is gone."""

QUIET_S = 10.0
"""What lies in a drop folder has landed when it did not change for so long. More than `settle_s` of refresh.yaml, though a file
system's clock be some seconds off: the one run that an entry calls for finds it whole."""

HOOK_PORT = 4300
HOOK_ROUTE = "/registry"
"""Where the registry's webhook calls, on loopback."""

HEARTBEAT_S = 30
"""How often a flow run says that it lives (Prefect's least): `flows.services.tending` counts on it."""


def settle() -> None:
    """Have this process and all it starts send nothing out and write nothing outside the project."""
    os.environ.update(SILENT)
    os.environ.setdefault("DVC_SITE_CACHE_DIR", str(ROOT / ".dvc/tmp/site"))  # else DVC keeps its index in /var/tmp
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while waiting halve a neighbour's speed


def set_up(*, quiet_console: bool) -> None:
    """Prepare this process for importing Prefect, which reads its settings when it is imported.

    Args:
        quiet_console: keep Prefect's own lines off the terminal (its API still receives every one).

    """
    settle()
    defaults = {
        "PREFECT_HOME": str(ROOT / ".prefect"),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
    }
    if quiet_console:
        # Every logger of Prefect ends in this handler; a failing task would print its traceback there.
        defaults["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    for key, value in defaults.items():
        os.environ.setdefault(key, value)


def path() -> str:
    """A search path on which this interpreter's own programs come first.

    Its folder and not its resolved path: a virtual environment is a link to another one's binary.
    """
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def for_stages(*, group: str, mark: dict[str, str], uri: str) -> dict[str, str]:
    """The environment of a stage's process.

    Args:
        group: id of this pipeline run; stages write it beside what they record.
        mark: the variable by which `guard` knows our processes.
        uri: the tracking server.

    """
    settle()
    return {
        **os.environ,
        **mark,
        "PATH": path(),
        "PYTHONUNBUFFERED": "1",  # lines reach the task's log while the stage runs
        "LIMBECK_GROUP": group,
        "LIMBECK_REPLAY": "flow",
        "MLFLOW_TRACKING_URI": uri,
        WATCH: str(os.getpid()),
    }
