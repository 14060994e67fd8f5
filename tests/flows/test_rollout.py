"""The flow `rollout`: its deployment, its command, and a canary that real devices judge through a real server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from flows.rollout import app, rollout
from limbeck import ledger
from limbeck.edge import spool
from limbeck.edge.agent import Agent
from limbeck.edge.home import Home, init
from limbeck.edge.trust import share_of
from limbeck.edge.update import open_source, update
from limbeck.publishing.rollout import Rules
from limbeck.publishing.serving import Canary, Publisher
from limbeck.publishing.staged import DECIDED
from tests.conftest import ROOT, TINY
from tests.publishing.servers import environment, serving
from tests.tracking.conftest import MODEL

RULES = Rules(
    ladder=(0.05, 0.5), dwell_hours=0, min_devices=4, min_answers=30, latency_slack=1e6, max_slowdown=1e6
)  # a machine that has other work to do is no slow model


def test_the_deployment_shows_every_rule_with_its_default() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (found,) = [each for each in deployments if each["name"] == "rollout"]
    assert found["entrypoint"] == "flows/rollout.py:rollout"
    assert found["parameters"] == {"model": [], "rules": json.loads(Rules().model_dump_json())}
    assert [schedule["cron"] for schedule in found["schedules"]] == ["35 * * * *"]


def test_the_command_names_every_rule_and_refuses_what_is_none(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["--help"], terminal_width=200).output
    assert all(f"{name}=" in told for name in Rules.model_fields)
    for rule, said in (("ladder=[0.5,0.1]", "a ladder goes up"), ("min_device=3", "Extra inputs are not permitted")):
        answer = CliRunner().invoke(app, ["--rule", rule, "--dry-run", "--folder", str(tmp_path)])
        assert answer.exit_code == 2
        assert said in answer.output


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_what_hinders_a_rollout_is_the_message_of_the_failed_run(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(TINY.read_text())
    state = rollout.with_options(retries=0)(folder=tmp_path, return_state=True)
    assert state.is_failed()
    assert "make them with `limbeck keys init`" in str(state.message)


@pytest.fixture
def served(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(workspace) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri


class Fleet:
    """Real devices of one server."""

    def __init__(self, workspace: Path, uri: str) -> None:
        self.workspace, self.uri = workspace, uri
        self.homes: list[Home] = []

    def limbeck(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "limbeck.cli", *arguments]
        done = subprocess.run(command, cwd=self.workspace, env=environment(self.uri), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def canary(self) -> Canary | None:
        return Publisher.of(self.workspace).canary(MODEL)

    def grow(self, canary: Canary, ours: int, theirs: int) -> None:
        """Provision devices until so many of either kind are there."""
        told = json.loads((self.workspace / "provisioned/device.json").read_text())
        settings = {"window_s": 0, "min_answers": 30}
        (self.workspace / "provisioned/device.json").write_text(json.dumps(told | {"settings": settings}))
        for _ in range(1000):
            home = init(self.workspace / "provisioned", self.workspace / f"home-{len(list(self.workspace.iterdir()))}")
            mine = share_of(canary.salt, home.device.id) < canary.share
            if (ours if mine else theirs) > 0:
                self.homes.append(home)
            ours, theirs = ours - mine, theirs - (not mine)
            if max(ours, theirs) <= 0:
                return

    def live(self) -> list[int]:
        """Every device updates, answers for a while and reports; which version it ends with."""
        serials = []
        batch = np.zeros((1, 1, 4, 1), np.uint8)
        for home in self.homes:
            source = open_source(home)
            update(home, source)
            with Agent(home.path, updates=False) as agent:
                for _ in range(40):
                    agent.predict(batch)
                agent._digest()
                agent._judge()
                serials.append(agent.serial)
            spool.upload(home, source)
        return serials

    def flow(self) -> str:
        state = rollout.with_options(retries=0)(model=[MODEL], rules=RULES, folder=self.workspace, return_state=True)
        assert state.is_completed(), state.message
        return str(state.message)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_canary_that_devices_praise_becomes_champion_and_one_that_they_leave_is_taken_back(
    served: str, workspace: Path
) -> None:
    fleet = Fleet(workspace, served)
    fleet.limbeck("keys", "init")
    fleet.limbeck("publish", MODEL, "--serial", "1")
    fleet.limbeck("provision", MODEL, "--out", "provisioned", "--reports")
    assert fleet.flow() == "no canary"
    fleet.limbeck("publish", MODEL, "--alias", "canary", "--serial", "2", "--share", "0.05")
    canary = fleet.canary()
    assert canary is not None
    fleet.grow(canary, 4, 8)
    assert "wait: 0 devices use it, 4 are asked for" in fleet.flow()
    assert sorted(fleet.live()) == [1] * 8 + [2] * 4
    dry = subprocess.run(
        [sys.executable, "-m", "flows.rollout", "--dry-run", "--folder", str(workspace), "--rule", "min_devices=4"],
        cwd=ROOT, env=environment(served), capture_output=True, text=True,
    )  # fmt: skip
    assert dry.returncode == 0, dry.stderr
    assert "hours at this share, 24 are asked for" in dry.stdout
    assert "widen to 0.5 of the fleet" in fleet.flow()
    assert fleet.live().count(2) > 4
    assert "promote" in fleet.flow()
    assert (fleet.canary(), set(fleet.live())) == (None, {2})
    assert fleet.flow() == "no canary"

    for home in fleet.homes:
        told = json.loads((home.path / "device.json").read_text())
        told["settings"]["latency_slack"] = 0  # whatever is new is too slow for them
        (home.path / "device.json").write_text(json.dumps(told))
    fleet.limbeck("publish", MODEL, "--alias", "canary", "--serial", "1", "--share", "0.9")
    assert fleet.live() == [2] * 12
    assert "x reverted: p95" in fleet.flow()
    assert (fleet.canary(), fleet.live()) == (None, [2] * 12)
    decided = [e.why.partition(",")[0] for e in ledger.read(workspace / "ledger.jsonl") if e.alias == DECIDED]
    assert decided == ["to widen from 0.05 to 0.5", "to promote", "to take back"]
