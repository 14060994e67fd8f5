import os
import signal
import subprocess
import sys
import time

import pytest

from flows import guard

LONG_S = 30.0

# Starts a guard, a marked child that ignores SIGTERM and one in a session of its own; then waits to be killed.
FLOW = """
import os, subprocess, sys, time
from flows import guard

watching = guard.start()
environment = {**os.environ, **watching.environment}
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
for session in (False, True):
    child = subprocess.Popen([sys.executable, "-c", stubborn], env=environment, start_new_session=session,
                             stdout=subprocess.PIPE)
    child.stdout.readline()
print(watching.mark, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_marked_outlives_the_flow(how: signal.Signals) -> None:
    flow = subprocess.Popen([sys.executable, "-c", FLOW], stdout=subprocess.PIPE, text=True)
    assert flow.stdout is not None
    with flow.stdout:
        mark = flow.stdout.readline().strip()
        assert len(guard.marked(mark)) == 2
        flow.send_signal(how)
        flow.wait()
    limit = time.monotonic() + LONG_S
    while guard.marked(mark) and time.monotonic() < limit:
        time.sleep(0.05)
    assert guard.marked(mark) == []


def test_closing_ends_what_is_left_and_only_that() -> None:
    watching = guard.start()
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    marked = subprocess.Popen(command, env={**os.environ, **watching.environment})
    stranger = subprocess.Popen(command)
    try:
        watching.close()
        assert marked.wait(LONG_S) == -signal.SIGTERM
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
