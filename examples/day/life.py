"""Where the day is lived: `make up`'s services on free ports, a workspace, and what the registry says."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import yaml

from examples.day.world import Digits
from flows import environment, guard, workspace
from flows.refreshing.climbing import Refresh
from limbeck.edge import manifest
from limbeck.edge.session import open_session
from limbeck.errors import LimbeckError
from limbeck.refresh import rules as rules_file
from limbeck.refresh import story

HERE = Path(__file__).parent
TARGET = "phone"
QUIET_S = 1.0
LIMIT_S = 1800.0
"""What a part of the day may take on a slow machine."""


class DayFailed(LimbeckError):
    """A run failed, or never came."""


def make(place: Path, base: Digits) -> None:
    """Make the workspace, with an MLflow database of its own.

    Raises:
        DayFailed: a day was lived there already.

    """
    left = [folder for folder in (place, environment.ROOT / "work/refresh/day-phone") if folder.exists()]
    if left:
        raise DayFailed(f"a day was lived here already; next: rm -r {' '.join(map(str, left))}")
    (place / "drop").mkdir(parents=True)
    np.savez(place / "base.npz", x=base.x, y=base.names.astype(int))
    params = yaml.safe_load((HERE / "params.yaml").read_text(encoding="utf-8"))
    params["data"]["source"]["path"] = str(place / "base.npz")
    params["tracking"]["uri"] = f"sqlite:///{place}/mlflow.db"
    (place / "base.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    workspace.create(place, place / "base.yaml")
    (place / rules_file.FILE).write_bytes((HERE / rules_file.FILE).read_bytes())


@dataclass
class Services:
    """Running services of a workspace."""

    place: Path
    process: "subprocess.Popen[bytes]"
    client: Any

    def run(self, deployment: str, **parameters: Any) -> list[str]:
        """Have the worker run a deployment now; what its runs said."""
        before = len(self.ended())
        found = self.client.read_deployment_by_name(deployment)
        self.client.create_flow_run_from_deployment(found.id, parameters=parameters)
        return self.until_idle(before)

    def land(self, *entries: Callable[[Path], None]) -> list[str]:
        """Let something appear in the drop folder; what the runs said that it called for."""
        before = len(self.ended())
        for write in entries:
            write(self.place / environment.DROP)
        return self.until_idle(before)

    def ended(self) -> dict[UUID, Any]:
        """Runs of deployments that came to their end, in their order."""
        runs = sorted(self.client.read_flow_runs(), key=lambda run: run.created)
        return {run.id: run for run in runs if run.deployment_id and _has_ended(run)}

    def until_idle(self, before: int) -> list[str]:
        """Wait until what landed was taken, all runs have ended, and more than `before`; what these said.

        Raises:
            DayFailed: one failed, or there was none in `LIMIT_S`.

        """
        limit = time.monotonic() + LIMIT_S
        while True:
            self.check()
            runs = [run for run in self.client.read_flow_runs() if run.deployment_id]
            ended = self.ended()
            lies = [path for path in (self.place / environment.DROP).iterdir() if path.name[0] != "."]
            failed = [run.state.message or "" for run in ended.values() if not run.state.is_completed()]
            if failed:
                raise DayFailed(f"a run failed: {failed[0]}; see {self.place / '.limbeck/logs'}")
            if not lies and len(ended) > before and len(ended) == len(runs):
                return [str(run.state.message) for run in list(ended.values())[before:]]
            if time.monotonic() > limit:
                raise DayFailed(f"nothing more happened in {LIMIT_S:.0f} s; see {self.place / '.limbeck/logs'}")
            time.sleep(1)

    def check(self) -> None:
        """Raises `DayFailed` where the services have ended."""
        if self.process.poll() is not None:
            raise DayFailed(f"the services have ended; see {self.place / 'up.log'}")


def _has_ended(run: Any) -> bool:
    return run.state is not None and run.state.is_final() and not run.state.is_crashed()  # that one is tried again


@contextmanager
def services(place: Path, *, lost_s: float) -> Iterator[Services]:
    """Servers, worker and listener of a workspace while the block runs; they end with this process, however that ends."""
    ports = {name: _free_port() for name in ("prefect", "mlflow")}
    os.environ |= {
        "PREFECT_HOME": str(place / ".prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{ports['prefect']}/api",
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",  # the wall's clock has no say in this day
    }
    environment.set_up(quiet_console=True)
    command = [sys.executable, "-m", "flows.services.servers", "--worker", "--folder", str(place)]
    command += ["--lost-s", str(lost_s), "--quiet-s", str(QUIET_S)]
    command += [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    watching = guard.start()
    with (place / "up.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=environment.ROOT, env={**os.environ, **watching.environment}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{ports['mlflow']}"  # from here on the registry's address
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            lived = Services(place, process, client)
            while b"Worker  " not in (place / "up.log").read_bytes():
                lived.check()
                time.sleep(0.5)
            yield lived
    finally:
        if process.poll() is None:
            process.terminate()  # a shell's background jobs would ignore an interrupt
            process.wait()
        watching.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def accuracy(place: Path, kinds: dict[str, Digits]) -> dict[str, float]:
    """Of the champion's file, on each kind of samples."""
    refresh = _refresh(place)
    _, made = refresh.champion()
    export = made / "export" / TARGET
    classes = np.array(manifest.read(export)["classes"])
    session = open_session(export / f"{refresh.variant(made)}.onnx", 1)
    return {
        kind: float((classes[session.run(None, {"input": each.x})[0].argmax(1)] == each.names).mean())
        for kind, each in kinds.items()
    }


def stories(place: Path) -> Sequence[tuple[story.Story, Path]]:
    """Every refresh so far, and its folder."""
    refresh = _refresh(place)
    return [(told, refresh.folder(told)) for told in story.every(refresh.place)]


def looks(place: Path) -> Sequence[Path]:
    """What was written of looks at windows that called for nothing."""
    return sorted((_refresh(place).place / "looks").glob("*.json"))


def _refresh(place: Path) -> Refresh:
    return Refresh.quiet(place, TARGET, rules_file.load(place / rules_file.FILE))
