"""docs/schedule.md: its deployments are those of prefect.yaml, its labels those of the events, its commands run."""

import re
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import typer
import yaml

from flows.services import deploy, listen, servers
from flows.services.landing import Landed
from limbeck.tracking.webhooks import ACTIONS, Change
from tests.conftest import ROOT
from tests.flows.conftest import make_project
from tests.flows.serving import up
from tests.pipeline.docs.pages import blocks_of, text_of

BLOCKS = [block for block in blocks_of("schedule") if block.kind == "sh" and not block.is_example]


def rows(heading: str) -> list[str]:
    """First cells of the table below a heading row."""
    table = text_of("schedule").split(f"| {heading} |")[1].split("\n\n")[0]
    return re.findall(r"^\| `([\w./-]+)` \|", table, re.MULTILINE)


def test_the_page_tells_of_every_deployment() -> None:
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    flows = {entry["name"]: entry["entrypoint"].rpartition(":")[2] for entry in declared}
    assert rows("deployment | when") == [f"{flow}/{name}" for name, flow in flows.items()]


class Server:
    """Takes events as Prefect's server does."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def request(self, method: str, path: str, json: list[dict[str, Any]]) -> "Server":
        assert (method, path) == ("POST", "/events")
        self.told += json
        return self

    def raise_for_status(self) -> None:
        """It is well."""


def test_the_page_tells_every_label_and_action() -> None:
    server: Any = Server()
    listen.announce_data(server, Landed(Path("fashion"), "tonight", "1"))
    listen.announce_change(server, Change(UUID(int=1), "alias-set", "digits-phone", "3", "champion"))
    for event in server.told:
        labels = {name for name in event["resource"] if name.startswith("limbeck.")}
        assert set(rows(f"label | of `{event['event']}`")) == labels
        assert {f"limbeck.{key}" for key in event["payload"]} == labels
    assert all(f"`{action}`" in text_of("schedule") for action in ACTIONS.values())


@pytest.mark.parametrize("block", [block.text for block in blocks_of("schedule") if block.kind == "yaml"])
def test_the_triggers_of_the_page_are_prefects(block: str) -> None:
    from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger

    for trigger in yaml.safe_load(block)["triggers"]:
        understood = DeploymentEventTrigger.model_validate(trigger)
        assert understood.model_dump(mode="json", include=set(trigger)) == trigger


def test_options_that_the_page_names_exist() -> None:
    known = set()
    for module in (servers, deploy, listen):
        app = typer.Typer()
        app.command()(module.main)
        known |= {flag for parameter in typer.main.get_command(app).params for flag in parameter.opts}
    assert {"--lost-s", "--quiet-s", "--hook"} <= set(re.findall(r"(--[a-z-]+)", text_of("schedule"))) & known


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    folder = make_project(tmp_path, {"a": {}})
    (tmp_path / "home/tonight").mkdir(parents=True)
    (tmp_path / "home/tonight/x.npy").write_bytes(b"1")
    with up(folder) as running:
        variables = {**running.environment, "HOME": str(tmp_path / "home")}
        told = ""
        for block in BLOCKS:
            text = block.text.replace(":4200", f":{running.ports['prefect']}")
            text = text.replace("jobs=1", f"folder={folder}")
            done = subprocess.run(
                ["bash", "-euc", text], cwd=folder, env=variables, check=True, capture_output=True, text=True
            )
            told += done.stdout
        assert "compress" in told
        running.wait_for(lambda: running.announced("tonight"))
        (run,) = running.wait_for(lambda: running.runs("COMPLETED"))
        assert run["state"]["message"] == "1 ran, 0 reused, 0 failed"
