"""The flow against a Prefect server: states, order, failures, retries."""

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import ParamsError
from tests.flows.conftest import Project

pytestmark = pytest.mark.usefixtures("prefect_server")

TWO = {
    "a": {},
    "b@phone": {"after": ["a"]},
    "b@sensor": {"after": ["a"]},
    "c@phone": {"after": ["b@"]},
    "c@sensor": {"after": ["b@"]},
}


def run(folder: Path, **given: Any) -> Any:
    from flows.pipeline import compress

    return compress(folder=folder, return_state=True, **given)


def spans(folder: Path) -> list[str]:
    """`begin a`, `end a`, ... in the order in which stages really ran."""
    return (folder / "order.txt").read_text().splitlines() if (folder / "order.txt").exists() else []


def task_states(state: Any) -> dict[str, str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with get_client(sync_client=True) as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        return {found.name: found.state_name or "" for found in client.read_task_runs(flow_run_filter=only)}


def test_every_stage_is_a_task_and_a_second_run_runs_none(project: Project) -> None:
    folder = project(TWO)
    first = run(folder)
    assert first.is_completed()
    assert first.message == "5 ran, 0 reused, 0 failed"
    assert task_states(first) == dict.fromkeys(TWO, "Completed")
    before = spans(folder)
    assert run(folder).message == "0 ran, 5 reused, 0 failed"
    assert spans(folder) == before


def test_only_the_targets_asked_for_run(project: Project) -> None:
    folder = project(TWO)
    assert run(folder, target=["sensor"]).message == "3 ran, 0 reused, 0 failed"
    assert not any("phone" in line for line in spans(folder))


def test_what_goes_wrong_around_a_stage_fails_it_too(project: Project) -> None:
    folder = project(TWO)
    (folder / ".limbeck").mkdir(exist_ok=True)
    (folder / ".limbeck/logs").write_text("no folder")
    ended = run(folder)
    assert ended.is_failed()
    assert "a failed: " in ended.message
    assert "Not started for that: b@phone, b@sensor, c@phone, c@sensor." in ended.message


def test_a_failing_target_stops_its_own_line_while_the_other_goes_on(project: Project) -> None:
    folder = project({**TWO, "b@phone": {"how": "fail3", "after": ["a"], "retries": 1}})
    state = run(folder)
    assert state.is_failed()
    assert "b@phone failed: b@phone broke" in state.message
    assert "Not started for that: c@phone." in state.message
    assert state.result(raise_on_failure=False).exit_code == 3
    assert "end c@sensor" in spans(folder)
    assert spans(folder).count("begin b@phone") == 1, "an error is not tried again"
    assert task_states(state) == {
        **dict.fromkeys(("a", "b@sensor", "c@sensor"), "Completed"),
        "b@phone": "Failed",
        "c@phone": "NotReady",
    }


def test_a_crash_is_tried_again(project: Project) -> None:
    folder = project({"a": {"how": "die-once", "retries": 1}})
    assert run(folder).message == "1 ran, 0 reused, 0 failed"
    assert spans(folder) == ["begin a", "begin a", "end a"]


def test_an_exclusive_stage_has_the_machine_alone(project: Project) -> None:
    folder = project(
        {
            "a": {"how": "sleep0.4", "exclusive": True},
            "b@phone": {"how": "sleep0.2"},
            "b@sensor": {"how": "sleep0.2"},
        }
    )
    assert run(folder, jobs=3).is_completed()
    order = spans(folder)
    assert order.index("end a") == order.index("begin a") + 1


def test_a_mistake_in_params_starts_nothing(project: Project) -> None:
    folder = project(TWO)
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("champion_margin:", "champion_marge:"))
    state = run(folder)
    with pytest.raises(ParamsError, match="champion_marge.*did you mean 'champion_margin'"):
        state.result()
    assert spans(folder) == []


def test_a_decision_that_the_registry_does_not_know_is_registered_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limbeck.tracking import registry

    folder = project({"register@phone": {}})
    run(folder)
    (folder / "registry").mkdir()
    (folder / "registry/phone.json").write_text(
        json.dumps({"target": "phone", "identity": "abc", "variant": "model.fp32", "clauses": {}})
    )
    asked: list[tuple[str, str]] = []

    def is_registered(name: str, identity: str, *, uri: str, variant: str | None = None) -> bool:
        asked.append((name, identity))
        return len(asked) > 2

    monkeypatch.setattr(registry, "is_registered", is_registered)
    assert run(folder).message == "1 ran, 0 reused, 0 failed"
    assert run(folder).message == "0 ran, 1 reused, 0 failed"
    assert set(asked) == {("digits-phone", "abc")}
    assert spans(folder).count("begin register@phone") == 2
