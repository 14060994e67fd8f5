"""Copies of the project in folders of their own, and what one does with them: real git, real dvc, real processes.

origin (one commit of the working tree, params.yaml = tests/tiny.yaml)
  +-- git clone --> a Clone: own DVC cache, own mlflow.db, own .prefect
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from tests.conftest import ROOT, TINY

Found = TypeVar("Found")

LATE = ("benchmark", "register")
"""Stages whose dvc.lock entries hold measured times: they differ from run to run."""

OURS = ("LIMBECK_", "PREFECT_", "MLFLOW_", "DVC_", "GIT_", "PYTEST_", "COV_")

ONE_PROCESS = """
import json, sys
from stages.__main__ import main
for arguments in json.loads(sys.argv[1]):
    code = main(arguments)
    if code:
        sys.exit(code)
"""


def environment_of(folder: Path) -> dict[str, str]:
    """What a user's shell would hand over, with nothing of this session's own settings in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(OURS) and key != "PYTHONPATH"}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "OMP_WAIT_POLICY": "PASSIVE",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@localhost",
    }  # fmt: skip


@dataclass(frozen=True)
class Clone:
    """A project folder and the commands a user gives in it."""

    folder: Path

    def __truediv__(self, path: str) -> Path:
        return self.folder / path

    def run(
        self, *command: str | Path, expect: int | None = 0, timeout_s: float = 900, **more: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end. `expect` is the exit code it must have (None: any), `more` its variables."""
        done = subprocess.run(
            [str(word) for word in command], cwd=self.folder, env={**environment_of(self.folder), **more},
            capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if expect is not None:
            shown = f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
            assert done.returncode == expect, f"exit code {done.returncode}, expected {expect}: {shown}"
        return done

    @contextmanager
    def running(self, *command: str, **more: str) -> "Iterator[subprocess.Popen[bytes]]":
        """Start a command as the leader of a process group of its own; output goes to `.limbeck/output`."""
        output = self / ".limbeck/output"
        output.parent.mkdir(exist_ok=True)
        with output.open("ab") as stream:
            process = subprocess.Popen(
                command, cwd=self.folder, env={**environment_of(self.folder), **more},
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()

    def dvc(self, *arguments: str, expect: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """`dvc ...`."""
        return self.run("dvc", *arguments, expect=expect)

    def git(self, *arguments: str) -> str:
        """`git ...`: what it printed."""
        return self.run("git", *arguments).stdout

    def flow(self, *arguments: str, expect: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """`python -m flows.compress ...`."""
        return self.run("python", "-m", "flows.compress", *arguments, expect=expect)

    def command_of(self, stage: str) -> list[str]:
        """The arguments that dvc.yaml gives `python -m stages` for `prune@phone`, to be changed at will."""
        name, _, target = stage.partition("@")
        declared = yaml.safe_load((self / "dvc.yaml").read_text())["stages"][name]
        command = declared.get("do", declared)["cmd"].replace("${key}", target)
        assert command.startswith("python -m stages ")
        return list(command.split()[3:])

    def stage(self, stage: str, expect: int | None = 0, **more: str) -> "subprocess.CompletedProcess[str]":
        """`python -m stages ...` as dvc.yaml has it, without dvc."""
        return self.run("python", "-m", "stages", *self.command_of(stage), expect=expect, **more)

    def stages(self, *stages: str) -> "subprocess.CompletedProcess[str]":
        """Several stages one after the other in one process, for the time it saves."""
        return self.run("python", "-c", ONE_PROCESS, json.dumps([self.command_of(stage) for stage in stages]))

    def set_params(self, values: dict[str, Any]) -> None:
        """Change values of params.yaml by dotted key; a section that is not there is made."""
        params = yaml.safe_load((self / "params.yaml").read_text())
        for key, value in values.items():
            *sections, last = key.split(".")
            place = params
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        (self / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def status(self, stage: str) -> dict[str, Any]:
        """What a stage last said of itself; empty before it spoke."""
        try:
            said: dict[str, Any] = json.loads((self / f".limbeck/status/{stage}.json").read_text())
        except FileNotFoundError:
            return {}
        return said

    def locked(self) -> dict[str, Any]:
        """dvc.lock's entries by stage; empty before there is one."""
        try:
            return dict(yaml.safe_load((self / "dvc.lock").read_text())["stages"])
        except FileNotFoundError:
            return {}

    def results(self) -> dict[str, Any]:
        """dvc.lock's entries up to `export@T`: what must be the same on every run."""
        return {name: entry for name, entry in self.locked().items() if name.partition("@")[0] not in LATE}

    def versions(self) -> dict[str, list[str]]:
        """Versions by registered model, straight from the database: asking mlflow takes longer than a moment."""
        database = self / "mlflow.db"
        if not database.exists():
            return {}
        found: dict[str, list[str]] = {}
        try:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as open_database:
                for name, version in open_database.execute("SELECT name, version FROM model_versions"):
                    found.setdefault(name, []).append(str(version))
        except sqlite3.OperationalError:  # no table yet
            return {}
        return found

    def files(self) -> dict[str, str]:
        """Digest of every file that is the user's or a stage's out (not git's, DVC's, Python's or `.limbeck`)."""
        hidden = {".git", ".dvc", ".limbeck", ".prefect", "__pycache__"}
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not hidden & set(path.relative_to(self.folder).parts)
        }

    def processes(self) -> list[psutil.Process]:
        """Every living process that works in this folder or was started for it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                words = [process.cwd(), *process.cmdline(), *process.environ().values()]
                if any(str(self.folder) in word for word in words):
                    found.append(process)
        return found


def clone(origin: Path, folder: Path) -> Clone:
    """`git clone`, with a cache of its own (DVC's default)."""
    command = ["git", "clone", "--quiet", str(origin), str(folder)]
    subprocess.run(command, check=True, env=environment_of(folder), capture_output=True)
    return Clone(folder.resolve())


def copy_of(other: Clone, folder: Path) -> Clone:
    """The same files, their times kept: nothing of it has to run again."""
    shutil.copytree(other.folder, folder, symlinks=True)
    return Clone(folder.resolve())


def make_origin(folder: Path, params: Path = TINY) -> Path:
    """The working tree as one commit: tracked files as they are now, and new ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for leftover in ("dvc.lock", "metrics"):  # the project's own last run is not the tests'
        shutil.rmtree(folder / leftover, ignore_errors=True)
        (folder / leftover).unlink(missing_ok=True)
    shutil.copyfile(params, folder / "params.yaml")
    origin = Clone(folder)
    origin.git("init", "--quiet", "--initial-branch=main")
    origin.git("add", "--all")
    origin.git("commit", "--quiet", "--message=origin")
    return folder


def wait_for(look: Callable[[], Found | None], what: str, *, limit_s: float = 300, every_s: float = 0.01) -> Found:
    """Look again and again until there is something to see."""
    limit = time.monotonic() + limit_s
    while time.monotonic() < limit:
        if found := look():
            return found
        time.sleep(every_s)
    raise AssertionError(f"waited {limit_s:g} s in vain for {what}")
