"""`python -m flows.ui`: MLflow and Prefect on loopback, until interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from flows import environment, workspace
from limbeck import params as params_file
from limbeck.tracking.server import shown, tracking_uri

LOOPBACK = "127.0.0.1"


def main(
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's pages.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Port of Prefect's pages.")] = 4200,
) -> None:
    """Show runs, versions and flows in the browser; nothing listens beyond this machine."""
    environment.set_up(quiet_console=False)
    place = workspace.locate(None, None)
    uri = tracking_uri(params_file.load(place / "params.yaml").tracking.uri, place)
    variables = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # its job runners take 2 GB
    here = [sys.executable, "-m"]
    commands = {
        f"Prefect  http://{LOOPBACK}:{prefect_port}": [
            *here, "prefect", "server", "start", "--host", LOOPBACK, "--port", str(prefect_port),
        ],
    }  # fmt: skip
    if uri.startswith("http"):
        print(f"MLflow   {shown(uri)}, already served there", flush=True)
    else:
        commands[f"MLflow   http://{LOOPBACK}:{mlflow_port}"] = mlflow_command(place, mlflow_port)
        variables["MLFLOW_BACKEND_STORE_URI"] = uri  # not on the command line: it may hold a password
    logs = place / ".limbeck" / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    servers = []
    for line, command in commands.items():
        with (logs / f"{command[2]}.log").open("wb") as log:
            servers.append(
                subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=variables, start_new_session=True)
            )
        print(line, flush=True)
    print(f"Past runs are there; to watch one live: PREFECT_API_URL=http://{LOOPBACK}:{prefect_port}/api make run")
    print(f"Logs: {Path('.limbeck/logs')}. Ctrl-C ends both.", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while all(server.poll() is None for server in servers):
            time.sleep(0.5)
        print(f"A server ended by itself; see {logs}.", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 0
    for server in servers:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
    for server in servers:
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
    raise SystemExit(code)


def mlflow_command(place: Path, port: int) -> list[str]:
    """MLflow over a workspace's database: runs lie where they lie without a server, what devices fetch in mlartifacts."""
    artifacts = ["--default-artifact-root", (place / "mlruns").absolute().as_uri()]
    proxied = ["--artifacts-destination", str((place / "mlartifacts").absolute())]
    return [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), *artifacts, *proxied]


if __name__ == "__main__":
    typer.run(main)
