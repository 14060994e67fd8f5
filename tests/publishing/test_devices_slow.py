"""From the registry onto a device and back: publisher's commands, a real server, and the device's own commands."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.edge.agent import Agent
from tests.publishing.servers import environment, serving
from tests.tracking.conftest import MODEL

pytestmark = pytest.mark.slow


@pytest.fixture
def served(workspace: Path) -> Iterator[str]:
    with serving(workspace) as uri:
        yield uri


class People:
    """A publisher and a device in one folder."""

    def __init__(self, workspace: Path, uri: str) -> None:
        self.workspace, self.uri = workspace, uri

    def run(self, module: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=self.workspace, env=environment(self.uri),
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def limbeck(self, *arguments: str) -> str:
        return self.run("limbeck.cli", *arguments)

    def edge(self, command: str, *arguments: str) -> str:
        return self.run("limbeck.edge.cli", command, *arguments, "--home", "home")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.edge("status", "--json"))
        return found


def test_a_registered_version_reaches_a_device_answers_there_and_is_taken_back(served: str, workspace: Path) -> None:
    people = People(workspace, served)
    people.limbeck("keys", "init")
    people.limbeck("publish", MODEL, "--serial", "1")
    people.limbeck("provision", MODEL, "--out", "provisioned", "--reports")
    people.edge("init", "provisioned")
    assert "serial 1" in people.edge("update")
    brightest = np.zeros((1, 1, 4, 1), np.uint8)
    brightest[0, 0, 2] = 16
    with Agent(workspace / "home", updates=False) as agent:
        assert agent.serial == 1
        assert agent.classify(brightest)[0].label == "2"
        people.limbeck("publish", MODEL, "--serial", "2")
        people.edge("update")
        people.limbeck("rollback", MODEL)
        people.edge("update")
        assert agent.predict(brightest).argmax() == 2
    assert people.status()["current"].startswith("1-")
    people.edge("update")
    reports = [json.loads(path.read_text()) for path in (workspace / "kept").rglob("reports/*/*.json")]
    assert {(report["kind"], report["model"]) for report in reports} == {("usage", MODEL)}
    assert sum(report["calls"] for report in reports) == 2, "each answer counts once, whichever version gave it"
    assert people.status()["spooled"]["files"] == 0
    people.limbeck("publish", MODEL, "--serial", "2", "--folder", "stick")
    assert "serial 2" in people.edge("update", "--from", "stick")
