"""A small process that outlives the flow by seconds and ends what it left behind.

    flow ---stdin pipe---> guard (own session)        The pipe closes when the flow ends, however it ends:
      |                      |                        then the guard ends every process that carries the
      +-> prefect server <---+                        flow's mark in its environment. SIGKILL cannot be
      +-> dvc -> stage <-----+                        caught, a closed pipe cannot be missed.

Run as `python -m flows.guard MARK PATIENCE < pipe`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "LIMBECK_RUN"
"""Environment variable that names the run a process belongs to."""

PATIENCE_S = 1.0
"""What a process gets between being asked to end and being ended."""

_ours: set[str] = set()


@dataclass(frozen=True)
class Guard:
    """A running guard; `mark` goes into the environment of every process that it shall look after."""

    mark: str
    process: "subprocess.Popen[bytes]"

    @property
    def environment(self) -> dict[str, str]:
        """The mark as it stands in a process's environment."""
        return {MARK: self.mark}

    def close(self) -> None:
        """Let the guard do its work now, and wait until no marked process is left."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        _ours.discard(self.mark)


def is_ours(mark: str | None) -> bool:
    """Whether a guard of this process looks after the mark; one that was inherited waits for somebody else's end."""
    return mark in _ours


def start(*, patience_s: float = PATIENCE_S) -> Guard:
    """Start a guard for this process. Whatever it starts from now on may carry the mark; itself never does.

    Args:
        patience_s: what a process gets between being asked to end and being ended; 0 ends it without a question.

    """
    mark = uuid.uuid4().hex
    environment = {key: value for key, value in os.environ.items() if key != MARK}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.guard", mark, str(patience_s)],
        cwd=Path(__file__).resolve().parents[1],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # an inherited pipe would keep `make run | tee` waiting
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal to the flow's group does not reach it
    )
    _ours.add(mark)
    return Guard(mark, process)


def marked(mark: str) -> list[psutil.Process]:
    """Every living process, this one excepted, that was started with the mark in its environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # others' processes, and those that just ended
            living = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if living and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def end_marked(mark: str, patience_s: float = PATIENCE_S) -> None:
    """Ask every marked process to end, then end it; go on until two looks in a row find none."""
    asked: dict[psutil.Process, float] = {}
    empty = 0
    while empty < 2:
        found = marked(mark)
        empty = 0 if found else empty + 1
        for process in found:
            with contextlib.suppress(psutil.Error):
                if process not in asked and patience_s:
                    asked[process] = time.monotonic()
                    process.terminate()
                elif not patience_s or time.monotonic() - asked[process] > patience_s:
                    process.kill()
        time.sleep(0.1)


def main(mark: str, patience_s: float) -> None:
    """Wait for the end of the flow, then tidy up."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    while os.read(sys.stdin.fileno(), 1024):
        pass
    end_marked(mark, patience_s)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
