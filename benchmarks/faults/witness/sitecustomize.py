"""What Python loads into each process of a drilled device, because this folder leads its path.

It writes down which files reach the runtime and the reader of golden answers, with their digest at that moment, and
plays what befalls this one process: a clock that is wrong (DRILL_CLOCK, seconds), a kill (DRILL_KILL, `STEP:N`: at the
N-th operation on disk or network after the record said STEP).
"""

import atexit
import datetime
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

LOG, HOME = os.environ["DRILL_LOG"], os.environ["DRILL_HOME"]
OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "subprocess.Popen", "fcntl.flock", "socket.connect"}

if offset := float(os.environ.get("DRILL_CLOCK", 0)):
    true_time = time.time

    class Shifted(datetime.datetime):
        """`now` by the wrong clock."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            """See datetime."""
            return super().now(tz) + datetime.timedelta(seconds=offset)

    time.time = lambda: true_time() + offset
    datetime.datetime = Shifted  # type: ignore[misc]

from limbeck.edge import durable, golden, session  # noqa: E402  (they see the clock as it is now)


def note(**facts: Any) -> None:
    """One line, whole, however many processes write."""
    handle = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, json.dumps(facts).encode() + b"\n")
    finally:
        os.close(handle)


def opened(path: Path) -> None:
    """Note a file's digest as it is about to be taken for good."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        digest = str(error)
    note(opened=str(path), sha256=digest)


true_session, true_golden, true_write = session.open_session, golden.read, durable.write_json


def open_session(path: Path, threads: int) -> Any:
    """See limbeck.edge.session."""
    opened(path)
    return true_session(path, threads)


def read_golden(path: Path, variant: str) -> Any:
    """See limbeck.edge.golden."""
    opened(path)
    return true_golden(path, variant)


session.open_session, golden.read = open_session, read_golden

step, operations = "idle", 0
last_step, _, last_operation = os.environ.pop("DRILL_KILL", ":0").partition(":")  # not for this process's children


def kill() -> None:
    """As a power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)


def listen(event: str, words: tuple[Any, ...]) -> None:
    """Count what this process does to the disk and the network."""
    global operations
    if event in OPERATIONS or (event == "open" and str(words[0]).startswith(HOME)):
        operations += 1
        if step == last_step and operations == int(last_operation):
            kill()


def write_json(path: Path, value: Any, **options: Any) -> None:
    """See limbeck.edge.durable."""
    true_write(path, value, **options)
    if path.name == "state.json" and value["step"] != step:
        ended(value["step"])


def ended(following: str) -> None:
    """A step is over."""
    global step, operations
    if step == last_step:
        kill()  # it was shorter than the last time
    if following or step == "switched":  # else the update ended early
        note(step=step, operations=operations)
    step, operations = following, 0


if {"limbeck.edge.cli", "update"} <= set(sys.orig_argv):
    durable.write_json = write_json
    sys.addaudithook(listen)
    atexit.register(ended, "")
