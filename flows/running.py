"""One stage as one process group: `dvc repro --single-item STAGE`, its output streamed, its end explained."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.graph import Stage
from flows.machine import Stopped
from flows.turns import forget_zombies
from limbeck.errors import LimbeckError

STATUS = Path(".limbeck/status")
LOGS = Path(".limbeck/logs")
PATIENCE_S = 1.0

NOT_THE_STAGES = re.compile(r"ERROR: |> |Running stage |(\S+: line \d+: +\d+ )?(Killed|Terminated)\b")
"""What DVC and its shell add to a stage's output; some shells announce a killed command, others are replaced by it."""


class StageFailed(LimbeckError):
    """A stage ended with an error that repeating would repeat. `exit_code` is the stage's own."""

    def __init__(self, stage: str, cause: str, exit_code: int) -> None:
        super().__init__(f"{stage}: {cause}")
        self.stage, self.cause, self.exit_code = stage, cause, exit_code


class StageCrashed(StageFailed):
    """A stage's process died without a last word (killed, out of memory): worth another try."""


@dataclass(frozen=True)
class Outcome:
    """How a stage went well: its command ran, or DVC had its outs."""

    how: Literal["ran", "reused"]
    seconds: float


def read_status(workspace: Path, stage: str) -> dict[str, Any] | None:
    """What a stage last said of itself (see `limbeck.recording`), or None."""
    try:
        status = json.loads((workspace / STATUS / f"{stage}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return status if isinstance(status, dict) else None


class Runner:
    """Runs stages in a workspace and can end them all.

    Args:
        workspace: folder with dvc.yaml.
        environment: of every stage's process.
    """

    def __init__(self, workspace: Path, environment: Mapping[str, str]) -> None:
        self.workspace = workspace
        self.environment = dict(environment)
        self._groups: set[int] = set()
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def run(self, stage: Stage, log: Callable[[str], None], *, attempt: int = 1, force: bool = False) -> Outcome:
        """Bring one stage up to date, without its upstream.

        Args:
            stage: what to run, and for how long at most.
            log: gets every line of output as it comes.
            attempt: after the first one the log file is continued instead of begun anew.
            force: run the command though nothing changed.

        Raises:
            StageFailed: with the stage's own message and exit code, or DVC's words and 2.
            StageCrashed: the process died without a last word.
            Stopped: the runner was stopped.
        """
        before = read_status(self.workspace, stage.name)
        began = time.monotonic()
        log_file = self.workspace / LOGS / f"{stage.name}.log"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        tail: deque[str] = deque(maxlen=40)
        with log_file.open("w" if attempt == 1 else "a", encoding="utf-8") as file:

            def take(line: str) -> None:
                tail.append(line)
                print(line, file=file, flush=True)
                log(line)

            code, timed_out = self._execute(stage, take, force=force)
        seconds = time.monotonic() - began
        after = read_status(self.workspace, stage.name)
        spoke = after if after is not None and not same_run(before, after) else None
        if code == 0:
            return Outcome("ran" if spoke else "reused", seconds)
        if self._stopped.is_set():
            raise Stopped("the run was interrupted")
        if timed_out:
            limit = f"ran longer than {stage.timeout_s:g} s and was ended"
            raise StageFailed(stage.name, f"{limit}; raise meta.timeout_s in dvc.yaml or give it less to do.", 1)
        if spoke and spoke["outcome"] == "failed":
            raise StageFailed(
                stage.name, spoke.get("message") or "failed without a message", spoke.get("exit_code") or 1
            )
        if code < 0 or (spoke and spoke["outcome"] == "running"):
            raise StageCrashed(
                stage.name, f"its process died (killed? out of memory?). {_last_words(tail, log_file)}", 1
            )
        raise StageFailed(
            stage.name, f"{_words_of_dvc(tail) or f'dvc ended with {code}'}\n{_last_words(tail, log_file)}", 2
        )

    def stop(self) -> None:
        """End every stage that runs and start no other. Returns when all are gone."""
        self._stopped.set()
        with self._lock:
            groups = list(self._groups)
        _signal_groups(groups, signal.SIGTERM)
        limit = time.monotonic() + PATIENCE_S
        while self._groups and time.monotonic() < limit:
            time.sleep(0.02)
        _signal_groups(list(self._groups), signal.SIGKILL)

    def _execute(self, stage: Stage, take: Callable[[str], None], *, force: bool) -> tuple[int, bool]:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage.name]
        forget_zombies(self.workspace)
        with self._lock:
            if self._stopped.is_set():
                raise Stopped("the run was interrupted")
            process = subprocess.Popen(
                [*command, "--force"] if force else command,
                cwd=self.workspace,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # dvc, its shell and the stage are one group that one signal reaches
            )
            self._groups.add(process.pid)
        timed_out = threading.Event()

        def time_out() -> None:
            timed_out.set()
            _signal_groups([process.pid], signal.SIGTERM)
            time.sleep(PATIENCE_S)
            _signal_groups([process.pid] if process.pid in self._groups else [], signal.SIGKILL)

        def end_with_leader() -> None:
            # Killing dvc leaves its command running, with our pipe open. Unreaped, the leader keeps the group's number.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            _signal_groups([process.pid], signal.SIGKILL)

        timer = threading.Timer(stage.timeout_s, time_out)
        sweeper = threading.Thread(target=end_with_leader, daemon=True, name=f"end-{stage.name}")
        timer.daemon = True
        timer.start()
        sweeper.start()
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                take(line.rstrip("\n"))
        sweeper.join()
        timer.cancel()
        with self._lock:
            self._groups.discard(process.pid)
        return process.wait(), timed_out.is_set()


def same_run(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    """Whether two looks at a status file saw the same process."""
    return before is not None and all(before.get(key) == after.get(key) for key in ("pid", "started"))


def _signal_groups(groups: list[int], number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _last_words(lines: deque[str], log_file: Path) -> str:
    """The last line that is neither DVC's nor its shell's, and where the others stand."""
    of_stage = [line for line in lines if line.strip() and not NOT_THE_STAGES.match(line)]
    return f"Last line: {of_stage[-1].strip()!r}; all: {log_file}" if of_stage else f"Its output: {log_file}"


def _words_of_dvc(lines: deque[str]) -> str:
    """DVC's own explanation, when it refused before the stage could say anything."""
    return "\n".join(line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: "))
