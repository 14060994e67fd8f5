"""A device under drill: a disk of its own, real agent processes on it, and a witness in each of them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tuf.api.metadata import Metadata

from benchmarks.faults.networks import BATCH, answers, write_network
from benchmarks.places import ROOT
from limbeck.edge import home as state
from limbeck.edge.home import Home, Record

SETTINGS = {"window_s": 0, "min_answers": 3}
PATIENCE = 0.05
"""A device's own, on loopback."""
DISK_BYTES = 24_000_000
WITNESS = Path(__file__).parent / "witness"
ROLES = ("root", "timestamp", "snapshot", "targets")
LONGEST_S = 60.0
"""A device is given so long for anything before the drill says that it hangs."""


class Disk:
    """A small file system that can fill up and turn read-only; without the right to mount, a folder that cannot."""

    def __init__(self, place: Path) -> None:
        self.place, self.is_read_only = place, False
        place.mkdir()
        self.is_real = not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "drill", str(place)], capture_output=True
        ).returncode

    def fill(self, free_bytes: int) -> None:
        """Something else takes all room but so much."""
        there = os.statvfs(self.place)
        with (self.place / "filler").open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(1, there.f_bavail * there.f_frsize - free_bytes))

    def turn_read_only(self) -> None:
        """As a worn card does, also while files are being written: another view of it is mounted on top."""
        subprocess.run(["mount", "--bind", str(self.place), str(self.place)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(self.place)], check=True)
        self.is_read_only = True

    def mend(self) -> None:
        """Room again, writable again."""
        if self.is_read_only:
            subprocess.run(["umount", "--lazy", str(self.place)], check=True)
            self.is_read_only = False
        (self.place / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Give it back."""
        if self.is_real:
            subprocess.run(["umount", "--lazy", str(self.place)], check=False)


class Device:
    """Its state folder, its long-lived application, its updates.

    Args:
        place: a new folder.
        patience: times the usual, for everything that waits.

    """

    def __init__(self, place: Path, patience: float) -> None:
        place.mkdir(parents=True)
        self.longest_s, self._settings = LONGEST_S * patience, {**SETTINGS, "patience": PATIENCE * patience}
        self.place, self.log = place, place / "witness.jsonl"
        self.disk = Disk(place / "disk")
        self.path = self.disk.place / "home"
        self._read = 0
        self._kept: list[dict[str, Any]] = []
        self._application: subprocess.Popen[str] | None = None
        self.operations: dict[str, int] = {}
        write_network(place / "right.onnx", 0)
        np.savez(place / "batch.npz", batch=BATCH, right=answers(place / "right.onnx", BATCH))

    def init(self, provisioned: Path) -> None:
        """Provision it."""
        described = json.loads((provisioned / "device.json").read_text())
        (provisioned / "device.json").write_text(json.dumps({**described, "settings": self._settings}))
        state.init(provisioned, self.path)

    @property
    def home(self) -> Home:
        """Its state."""
        return Home(self.path)

    @property
    def record(self) -> Record:
        """What it says of itself."""
        return self.home.read()

    @property
    def serial(self) -> int:
        """Of the version that its record says is in use."""
        return int((self.record.current or "0").partition("-")[0])

    @property
    def floors(self) -> dict[str, int]:
        """The metadata versions that it goes not below."""
        found = {role: self.path / "tuf" / f"{role}.json" for role in ROLES}
        return {
            role: int(Metadata.from_file(str(path)).signed.version) for role, path in found.items() if path.is_file()
        }

    def _environment(self, **more: str) -> dict[str, str]:
        paths = os.pathsep.join(map(str, (WITNESS, ROOT)))
        usual = {"PYTHONPATH": paths, "DRILL_LOG": str(self.log), "DRILL_HOME": str(self.path), "OMP_NUM_THREADS": "1"}
        usual["PYTHONDONTWRITEBYTECODE"] = ""  # as on a device: compiled once
        return {**os.environ, **usual, "NO_PROXY": "*", **more}

    def update(self, **environment: str) -> "Update":
        """Begin `limbeck-edge update`."""
        return Update(self.path, self._environment(**environment))

    def start(self) -> None:
        """Start the application, and wait for its first answer."""
        command = [sys.executable, str(Path(__file__).parent / "application.py"), str(self.path)]
        self._application = subprocess.Popen(
            [*command, str(self.place / "batch.npz")], env=self._environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(self.place / "application.log").open("a"),
        )  # fmt: skip
        self.wait_for(lambda: self.answering() > 0, "the application to answer")

    def told(self) -> dict[str, Any]:
        """What the application saw since it was asked the last time.

        Raises:
            RuntimeError: it is dead.

        """
        found = [*self._kept, self._ask()]
        self._kept = []
        runs: list[list[int]] = []
        for serial, count in (run for each in found for run in each["runs"]):
            if runs and runs[-1][0] == serial:
                runs[-1][1] += count
            else:
                runs.append([serial, count])
        errors = [error for each in found for error in each["errors"]]
        return {"runs": runs, "errors": errors, "longest_s": max(each["longest_s"] for each in found)}

    def _ask(self) -> dict[str, Any]:
        assert self._application is not None
        assert self._application.stdin is not None
        assert self._application.stdout is not None
        hanging = threading.Timer(self.longest_s, self._application.kill)
        hanging.start()
        try:
            self._application.stdin.write("\n")
            self._application.stdin.flush()
            line = self._application.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            hanging.cancel()
        if not line:
            said = (self.place / "application.log").read_text()[-1000:]
            raise RuntimeError(f"the application ended with {self._application.wait()}: {said}")
        found: dict[str, Any] = json.loads(line)
        return found

    def answering(self) -> int:
        """The serial of the last answer; what was told until then is kept for `told`."""
        self._kept.append(self._ask())
        runs = self._kept[-1]["runs"]
        return int(runs[-1][0]) if runs else 0

    @property
    def is_alive(self) -> bool:
        """Whether the application's process runs."""
        return self._application is not None and self._application.poll() is None

    def kill(self) -> None:
        """The application's process is gone at once."""
        assert self._application is not None
        self._application.kill()
        self._application.wait()
        self._kept = []

    def stop(self) -> None:
        """End the application in good order."""
        if self._application is not None and self._application.poll() is None:
            self._application.communicate(timeout=self.longest_s)

    def wait_for(self, found: Callable[[], bool], what: str) -> None:
        """Look until it is so.

        Raises:
            RuntimeError: it is not.

        """
        until = time.monotonic() + self.longest_s
        while not found():
            if time.monotonic() > until:
                raise RuntimeError(f"waited {self.longest_s:g} s for {what}")
            time.sleep(0.03)

    def witnessed(self) -> list[dict[str, Any]]:
        """What the witness wrote down since it was asked the last time: files that were opened, with their digests."""
        if not self.log.is_file():
            return []
        with self.log.open() as stream:
            stream.seek(self._read)
            lines = [json.loads(line) for line in stream]
            self._read = stream.tell()
        for line in lines:
            if line.get("operations"):
                self.operations[line["step"]] = line["operations"]
        return [line for line in lines if "opened" in line]


class Update:
    """A running `limbeck-edge update`."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "limbeck.edge.cli", "update", "--home", str(home)], cwd=ROOT, env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def end(self, patience_s: float) -> str | None:
        """What it said last, and how it ended; None when it goes on."""
        try:
            said, _ = self._process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            return None
        code = self._process.returncode
        lines = [line for line in said.strip().splitlines() if line] or [
            "killed" if code < 0 else f"nothing, exit code {code}"
        ]
        if any(line.startswith("Traceback") for line in lines):
            return f"a traceback: {lines[-1]}"
        return lines[-1].removeprefix("limbeck-edge: ")

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.returncode

    def kill(self) -> None:
        """Gone at once."""
        self._process.kill()
