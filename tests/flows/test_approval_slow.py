"""A person's yes for real: Prefect's server, a worker, a deployment of which one run is allowed at a time."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import environment
from flows.refreshing.standing import turn
from limbeck.refresh import story as story_file
from limbeck.refresh.story import Story
from tests.flows.conftest import ROOT
from tests.flows.test_worker_slow import PREFECT, asked, prefect, server, wait_for

pytestmark = pytest.mark.slow
__all__ = ["server"]

YES, NO = {"run_input": {"ship": True}}, {"run_input": {"ship": False}}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    return tmp_path


class Deployed:
    """The deployment, and what became of its runs."""

    def __init__(self, environment: dict[str, str], home: Path) -> None:
        self.environment, self.home = environment, home
        prefect(environment, "work-pool", "create", "limbeck", "--type", "process")
        how = ("--pool", "limbeck", "--job-variable", "working_dir=.", "--concurrency-limit", "1")
        prefect(environment, "deploy", "tests/flows/asking.py:refresh", "--name", "asks", *how)
        (self.found,) = self.asked("/deployments/filter", {})

    def asked(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return asked(self.environment, path, body)

    def run(self, parameters: dict[str, Any]) -> str:
        """The id of a new flow run."""
        made = self.asked(f"/deployments/{self.found['id']}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def state(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.asked(f"/flow_runs/{run}")["state"]
        return found

    def wait(self, run: str, name: str) -> dict[str, Any]:
        """Its state, once that has this name."""
        wait_for(lambda: self.state(run)["name"] == name or None)
        return self.state(run)

    def answer(self, run: str, said: dict[str, Any]) -> None:
        """Resume a run with the form filled in; the form is there a moment after the run is suspended."""
        wait_for(lambda: self.asked(f"/flow_runs/{run}/resume", said)["status"] == "ACCEPT" or None)

    def slots(self) -> int:
        """How many runs hold a place of the deployment."""
        return int(self.asked(f"/deployments/{self.found['id']}")["global_concurrency_limit"]["active_slots"])

    def told(self, name: str) -> Story:
        return story_file.read(self.home / f"work/refresh/{name}-phone/0001")


@pytest.fixture
def deployed(server: dict[str, str], home: Path) -> Iterator[Deployed]:
    from tests.flows.asking import HOME

    told = {**server, HOME: str(home), "PYTHONPATH": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    made = Deployed(told, home)
    with (home / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [*PREFECT, "worker", "start", "--pool", "limbeck", "--type", "process"],
            cwd=ROOT, env=told, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            yield made
        except AssertionError:
            print((home / "worker.log").read_text()[-4000:])
            raise
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def test_a_run_that_waits_for_a_yes_holds_nothing_and_ships_once_when_it_gets_one(
    deployed: Deployed, home: Path
) -> None:
    from tests.flows.asking import SHIPPED, prepare

    parameters = prepare(home, "willing", 1.0)
    first = deployed.run(parameters)
    deployed.wait(first, "Suspended")
    assert deployed.told("willing").asked_for.by == first  # type: ignore[union-attr]
    assert deployed.slots() == 0
    with turn("willing-phone"):
        pass
    second = deployed.run(parameters)
    assert "waits for a yes since" in deployed.wait(second, "Completed")["message"]
    assert deployed.asked(f"/flow_runs/{first}/resume", {})["status"] == "REJECT", "a yes is said, not implied"
    assert not (home / "willing" / SHIPPED).exists()

    deployed.answer(first, YES)
    assert "willing-phone: champion: refresh 1, norms" in deployed.wait(first, "Completed")["message"]
    assert (home / "willing" / SHIPPED).read_text().count("\n") == 1
    assert deployed.told("willing").approved is not None


def test_a_no_and_silence_leave_the_champion_where_it_is(deployed: Deployed, home: Path) -> None:
    from tests.flows.asking import SHIPPED, prepare

    answered, silent = prepare(home, "unwilling", 1.0), prepare(home, "silent", 1 / 3600)
    runs = {"unwilling": deployed.run(answered), "silent": deployed.run(silent)}
    deployed.wait(runs["unwilling"], "Suspended")
    deployed.answer(runs["unwilling"], NO)
    assert "refused: a person said no" in deployed.wait(runs["unwilling"], "Completed")["message"]

    wait_for(lambda: deployed.told("silent").asked_for)
    assert deployed.wait(runs["silent"], "Failed")["message"].endswith("paused and never resumed.")
    later = deployed.run(silent)
    assert "refused: nobody said yes within" in deployed.wait(later, "Completed")["message"]
    for name in runs:
        assert not (home / name / SHIPPED).exists()
        assert deployed.told(name).outcome == "refused"


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("hours", "shipped"), [(1.0, True), (3 / 3600, False)])
def test_a_run_without_a_deployment_waits_where_it_is(
    home: Path, monkeypatch: pytest.MonkeyPatch, hours: float, shipped: bool
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    from flows.refreshing import approval
    from tests.flows.asking import SHIPPED, prepare, refresh

    monkeypatch.setattr(approval, "POLL_S", 1)
    parameters = prepare(home, "here", hours)
    ended = threading.Event()

    def resume() -> None:
        paused = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
        with get_client(sync_client=True) as client:
            while not ended.wait(0.2):
                for run in client.read_flow_runs(flow_run_filter=paused):
                    client.resume_flow_run(run.id, run_input={"ship": True})

    somebody = threading.Thread(target=resume)
    if shipped:
        somebody.start()
    try:
        refresh(**parameters, return_state=True)
    finally:
        ended.set()
        if shipped:
            somebody.join()
    told = story_file.read(home / "work/refresh/here-phone/0001")
    assert (home / "here" / SHIPPED).exists() == shipped
    assert told.outcome == ("champion" if shipped else "refused")
    assert told.why.startswith("refresh 1, norms" if shipped else "nobody said yes within")
