"""A process that ends with its parent, whatever killed the parent.

A stage runs below dvc (through a shell) and perhaps below a flow. Killing one of them leaves the others
running, and a stage that nobody waits for still writes its output. So each stage watches them.
"""

import os
import signal
import threading
import time

import psutil

WATCH = "LIMBECK_WATCH"
"""Environment variable: pids, separated by commas, that a stage must not outlive (the flow's)."""

SHELLS = ("sh", "bash", "dash", "zsh", "fish", "ksh")


def _watched() -> list[psutil.Process]:
    """The parent (and its parent where it is only a shell), and whom LIMBECK_WATCH names."""
    found = []
    for parent in psutil.Process().parents():
        found.append(parent)
        if parent.name() not in SHELLS:
            break
    for pid in filter(None, os.environ.get(WATCH, "").split(",")):
        try:
            found.append(psutil.Process(int(pid)))
        except psutil.NoSuchProcess:
            os._exit(128 + signal.SIGTERM)
    return found


def _is_orphan() -> bool:
    """Whether dvc, which started us, was gone before we could look."""
    return os.getppid() == 1 and "DVC_STAGE" in os.environ


def _gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end_with_parent(every_s: float = 0.25) -> None:
    """Start a daemon thread that ends this process at once when a watched process is gone."""
    if _is_orphan():
        os._exit(128 + signal.SIGTERM)
    watched = _watched()

    def watch() -> None:
        while not any(map(_gone, watched)):
            time.sleep(every_s)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
