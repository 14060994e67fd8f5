"""`python -m flows.services.servers`: MLflow and Prefect on loopback, with `--worker` also all that works by itself.

make ui   Prefect's server, MLflow
make up   the same, then `flows.services.deploy`, a worker of the pool and `flows.services.listen`; these two are started again when
they end. Interrupted, worker and flows are ended at once and without a question: none of them says of a
run that it was cancelled, so the next `make up` goes on with it (see `flows.services.tending`).
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from flows import environment, guard, workspace
from limbeck import params as params_file
from limbeck.errors import LimbeckError
from limbeck.tracking import webhooks
from limbeck.tracking.server import forget, probe, shown, tracking_uri

LOOPBACK = "127.0.0.1"
START_S = 300.0
SERVERS_PATIENCE_S = 10.0
PAUSE_S = 5.0
"""Before what ended by itself is started again."""

LOOK_S = 0.5


class Ended(LimbeckError):
    """Something that must not end by itself did, or did not begin."""

    exit_code = 1


@dataclass
class Program:
    """A command that runs beside others, and whether it is started again when it ends."""

    name: str
    command: list[str]
    variables: Mapping[str, str]
    again: bool
    process: "subprocess.Popen[bytes] | None" = None
    not_before: float = field(default=0.0)


class Programs:
    """Programs that end with this process, however it ends: servers in order, what works for them at once.

    Args:
        logs: a folder; NAME.log gets what NAME writes.

    """

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        self._programs: list[Program] = []
        self._servers, self._workers = guard.start(patience_s=SERVERS_PATIENCE_S), guard.start(patience_s=0)

    def __enter__(self) -> "Programs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workers.close()
        self._servers.close()
        for program in self._programs:
            if program.process:
                program.process.wait()

    def serve(self, name: str, module: list[str], variables: Mapping[str, str]) -> None:
        """Start a server; its end is the end of all."""
        self._add(Program(name, [sys.executable, "-m", *module], {**variables, **self._servers.environment}, False))

    def work(self, name: str, module: list[str], variables: Mapping[str, str]) -> None:
        """Start what is started again when it ends."""
        self._add(Program(name, [sys.executable, "-m", *module], {**variables, **self._workers.environment}, True))

    def once(self, name: str, module: list[str], variables: Mapping[str, str]) -> None:
        """Run a command to its end.

        Raises:
            Ended: it failed.

        """
        program = Program(name, [sys.executable, "-m", *module], {**variables, **self._workers.environment}, False)
        if self._start(program).wait():
            raise Ended(f"{name} failed; see {self.logs / name}.log.")

    def until(self, answers: Callable[[], bool], name: str) -> None:
        """Wait for a server.

        Raises:
            Ended: it has ended, or does not answer in `START_S`.

        """
        limit = time.monotonic() + START_S
        while not answers():
            self.look()
            if time.monotonic() > limit:
                raise Ended(f"{name} does not answer after {START_S:.0f} s; see {self.logs / name}.log.")
            time.sleep(LOOK_S)

    def look(self) -> None:
        """Start again what ended and may, after a pause.

        Raises:
            Ended: a server has ended.

        """
        for program in self._programs:
            if program.process and program.process.poll() is not None:
                code, program.process = program.process.returncode, None
                log = self.logs / f"{program.name}.log"
                if not program.again:
                    raise Ended(f"{program.name} ended by itself (code {code}); see {log}.")
                print(f"The {program.name} ended (code {code}), again in {PAUSE_S:g} s; see {log}.", flush=True)
                program.not_before = time.monotonic() + PAUSE_S
            if program.process is None and time.monotonic() >= program.not_before:
                self._start(program)

    def _add(self, program: Program) -> None:
        self._programs.append(program)
        self._start(program)

    def _start(self, program: Program) -> "subprocess.Popen[bytes]":
        with (self.logs / f"{program.name}.log").open("ab" if program.not_before else "wb") as log:
            program.process = subprocess.Popen(
                program.command,
                cwd=environment.ROOT,
                env=program.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return program.process


def main(
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's pages.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Port of Prefect's pages.")] = 4200,
    worker: Annotated[bool, typer.Option("--worker", help="Deploy prefect.yaml, and do what is due.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Whose registry and drop folder. [default: the project's, work/*]")
    ] = None,
    hook_port: Annotated[int, typer.Option(help="Where the registry's webhook calls.")] = environment.HOOK_PORT,
    lost_s: Annotated[
        float, typer.Option(min=40, help="A run that says nothing for so long is tried again.")
    ] = environment.LOST_S,
    quiet_s: Annotated[
        float, typer.Option(min=0, help="Data has landed when unchanged for so long.")
    ] = environment.QUIET_S,
) -> None:
    """Show runs, versions and flows in the browser; nothing listens beyond this machine."""
    environment.set_up(quiet_console=False)
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.default_int_handler)
    place = workspace.locate(None, folder)
    try:
        uri = tracking_uri(params_file.load(place / "params.yaml").tracking.uri, place)
        hooked = worker and webhooks.SECRET in os.environ and bool(webhooks.secret())
        with Programs(place / ".limbeck/logs") as programs:
            api = start_prefect(programs, prefect_port)
            mlflow = start_mlflow(programs, place, uri, mlflow_port, hooked=hooked)
            print(f"Past runs are there; to watch one live: PREFECT_API_URL={api} make run")
            print(f"Logs: {programs.logs}. Ctrl-C ends all.", flush=True)
            if worker:
                variables = {**os.environ, "PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": mlflow}
                programs.until(lambda: _answers(f"{api}/health"), "prefect")
                programs.until(lambda: probe(mlflow), "mlflow")
                forget(mlflow)
                hook = f"http://{LOOPBACK}:{hook_port}{environment.HOOK_ROUTE}"
                told = ["--hook", hook] if hooked and mlflow != uri else []  # another's server may not call loopback
                programs.once("deploy", ["flows.services.deploy", *told], variables)
                waits = ["--quiet-s", str(quiet_s), "--lost-s", str(lost_s)]
                place_only = ["--folder", str(place)] if folder else []
                listener = ["flows.services.listen", "--port", str(hook_port), *waits, *place_only]
                programs.work("listener", listener, variables)
                print(
                    f"Listener for data in {environment.DROP}/{' and for the registry' if hooked else ''}", flush=True
                )
                command = ["prefect", "worker", "start", "--pool", environment.POOL, "--type", "process"]
                programs.work("worker", command, _without_secret(variables))
                print(f"Worker   of the pool {environment.POOL}, does what prefect.yaml says", flush=True)
            while True:
                programs.look()
                time.sleep(LOOK_S)
    except LimbeckError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(0) from None


def start_prefect(programs: Programs, port: int) -> str:
    """Prefect's server; its API's address."""
    _free(port, "--prefect-port")
    variables = {key: value for key, value in _without_secret().items() if key != "PREFECT_API_URL"}
    programs.serve("prefect", ["prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)], variables)
    print(f"Prefect  http://{LOOPBACK}:{port}", flush=True)
    return f"http://{LOOPBACK}:{port}/api"


def start_mlflow(programs: Programs, place: Path, uri: str, port: int, *, hooked: bool) -> str:
    """MLflow's server over a workspace's database, unless `uri` is a server already; its address."""
    if uri.startswith("http"):
        print(f"MLflow   {shown(uri)}, already served there", flush=True)
        return uri
    _free(port, "--mlflow-port")
    variables = {
        **_without_secret(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its job runners take 2 GB
        "MLFLOW_BACKEND_STORE_URI": uri,  # not on the command line: it may hold a password
        **(webhooks.server_environment(place) if hooked else {}),
    }
    programs.serve("mlflow", mlflow_command(place, port)[2:], variables)
    print(f"MLflow   http://{LOOPBACK}:{port}", flush=True)
    return f"http://{LOOPBACK}:{port}"


def mlflow_command(place: Path, port: int) -> list[str]:
    """MLflow over a workspace's database: runs lie where they lie without a server, what devices fetch in mlartifacts."""
    artifacts = ["--default-artifact-root", (place / "mlruns").absolute().as_uri()]
    proxied = ["--artifacts-destination", str((place / "mlartifacts").absolute())]
    return [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--workers",
        "1",
        *artifacts,
        *proxied,
    ]


def _without_secret(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {key: value for key, value in variables.items() if key != webhooks.SECRET}


def _free(port: int, option: str) -> None:
    """Raise unless a server may listen there: it would answer for one that is not ours."""
    with socket.socket() as tried:
        if tried.connect_ex((LOOPBACK, port)) == 0:
            raise Ended(f"port {port} is taken, perhaps by another `make up`. Next: end that one, or {option} another.")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    typer.run(main)
