"""`limbeck-edge update` killed with SIGKILL anywhere: a working model answers, and the same command ends well."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.edge import bundle
from limbeck.edge.agent import Agent
from limbeck.edge.home import STEPS, Home
from tests.conftest import ROOT
from tests.edge.delivery import INPUTS, ArtifactServer, Publisher, _Handler

pytestmark = pytest.mark.slow

AT_STEP = """
import os, signal, sys
from limbeck.edge import cli, durable
step, when, *arguments = sys.argv[1:]
write = durable.write_json
def dying(path, value, **options):
    ends = path.name == "state.json" and value["step"] == step
    if ends and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, value, **options)
    if ends:
        os.kill(os.getpid(), signal.SIGKILL)
durable.write_json = dying
sys.exit(cli.main(arguments))
"""
AT_OPERATION = """
import os, signal, sys
from limbeck.edge import cli, trial, update
last, *arguments = sys.argv[1:]
left = int(last)
def counting(real):
    def counted(*words, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words, **named)
    return counted
for name in ("replace", "fsync", "unlink", "mkdir"):
    setattr(os, name, counting(getattr(os, name)))
update.update.__kwdefaults__["prove"] = trial.examine  # the trial writes nothing: in this process it is quicker
sys.exit(cli.main(arguments))
"""


def run(code: str, *words: object) -> int:
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def update(home: Home) -> None:
    command = [sys.executable, "-m", "limbeck.edge.cli", "update", "--home", home.path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def answers(home: Home) -> int:
    """The serial that answers, verified."""
    with Agent(home.path, updates=False) as agent:
        assert np.isfinite(agent.predict(INPUTS)).all()
        return agent.serial


def ends_well(home: Home, key: str) -> None:
    """After the kill: a model answers, the same command installs the new one, nothing is left over."""
    assert answers(home) in (1, 2)
    update(home)
    record = home.read()
    assert (record.current, record.candidate) == (key, None)
    assert (record.previous or "").startswith("1-")
    bundle.read(home.bundle(key))
    assert answers(home) == 2
    assert {path.name for path in (home.path / "bundles").iterdir()} == {record.current, record.previous}
    assert not list((home.path / "incoming").iterdir())


def begin(publisher: Publisher, home: Home) -> str:
    publisher.publish(1)
    update(home)
    with home.edit() as record:
        record.commit()
    return publisher.publish(2, padding=50_000)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS[1:])
def test_killed_at_a_named_step(publisher: Publisher, home: Home, step: str, when: str) -> None:
    key = begin(publisher, home)
    assert run(AT_STEP, step, when, "update", "--home", home.path) == -signal.SIGKILL
    ends_well(home, key)


def test_killed_at_every_operation_on_the_disk(publisher: Publisher, server: ArtifactServer, tmp_path: Path) -> None:
    import shutil

    from tests.edge.delivery import provisioned

    home = provisioned(publisher, tmp_path, server.address)
    key = begin(publisher, home)
    shutil.copytree(home.path, tmp_path / "begun", symlinks=True)
    for last in range(1, 1000):
        shutil.rmtree(home.path)
        shutil.copytree(tmp_path / "begun", home.path, symlinks=True)
        code = run(AT_OPERATION, last, "update", "--home", home.path)
        ends_well(home, key)
        if code == 0:
            break
    assert last > 15, "the sweep ended before the update had written much"


@pytest.mark.parametrize("tenth", range(1, 10))
def test_killed_in_the_middle_of_a_download(
    publisher: Publisher, server: ArtifactServer, home: Home, tenth: int
) -> None:
    key = begin(publisher, home)

    def stalls(handler: _Handler, place: str, content: bytes) -> bool:
        if not place.endswith("padding.bin"):
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) * tenth // 10])
        handler.wfile.flush()
        time.sleep(60)
        return True

    server.faults.append(stalls)
    process = subprocess.Popen([sys.executable, "-m", "limbeck.edge.cli", "update", "--home", home.path], cwd=ROOT)
    part = home.incoming(key) / "padding.bin.part"
    while not part.is_file():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.2)
    process.kill()
    process.wait()
    server.faults.clear()
    ends_well(home, key)


def test_an_application_killed_again_and_again_loses_neither_its_model_nor_its_reports(
    publisher: Publisher, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(publisher, home)
    code = """
import os, signal, sys, time, numpy as np
from limbeck.edge import agent
agent.FLUSH_S = 0.0
with agent.Agent(sys.argv[1], updates=False) as serving:
    for _ in range(7):
        serving.predict(np.ones((1, 8, 8, 1), np.uint8))
    time.sleep(1.5)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(3):
        run(code, home.path)
    reports = [json.loads(path.read_text()) for path in home.spool.glob("*.open")]
    assert [report["calls"] for report in reports] == [7, 7, 7]
    for path in home.spool.glob("*.open"):
        os.utime(path, (0, 0))  # an hour later
    assert answers(home) == 1
    closed: list[dict[str, Any]] = [json.loads(path.read_text()) for path in home.spool.glob("*.json")]
    assert sum(report.get("calls", 0) for report in closed) == 22
