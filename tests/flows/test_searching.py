"""The search as a flow, with trials that answer at once; real ones are in tests/pipeline/test_search.py."""

from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from flows import environment
from flows.search import Search, TrialFailed
from flows.searching import markdown, rows, search
from flows.space import Space
from flows.turns import Busy, alone
from limbeck.errors import LimbeckError, ParamsError
from tests.conftest import ROOT, TINY

CREATE = optuna.create_study
SPACE = Space.model_validate({"choose": {"student.model.width": [4, 8], "prune.ratio": {"low": 0.2, "high": 0.6}}})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which a wide student is better and larger, and what is cut a lot fails."""

    def measure(self: Search, number: int, values: dict[str, Any]) -> tuple[float, float, float]:
        width, ratio = values["student.model.width"], values["prune.ratio"]
        if ratio > 0.55:
            raise TrialFailed("diverged")
        return 0.8 + width / 100, width * 1000 * (1 - ratio), 0.1 * width

    in_memory = partial(optuna.create_study, storage=None)
    monkeypatch.setattr(Search, "measure", measure)
    monkeypatch.setattr("flows.search.optuna.create_study", lambda storage, **more: in_memory(**more))
    monkeypatch.setattr("flows.search.png", lambda _: b"")
    monkeypatch.setattr("flows.search.draw_front", lambda _: None)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    (tmp_path / "params.yaml").write_text(TINY.read_text())
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE.model_dump()))
    return tmp_path


def made(home: Path, said: list[str]) -> Search:
    return Search(home, "sensor", SPACE, "random", 0, say=said.append)


def test_every_trial_is_shown_when_it_ends_and_the_front_of_them_stands_first(home: Path) -> None:
    said, shown = list[str](), list[int]()
    found = made(home, said)
    found.run(6, None, after=lambda: shown.append(len(found.ended())))
    assert shown == [1, 2, 3, 4, 5, 6]
    assert [line.split(":")[0] for line in said] == [f"trial {number}" for number in range(6)]
    table = rows(found)
    assert sorted(row["trial"] for row in table) == [row["trial"] for row in found.rows()]
    assert [row["front"] for row in table] == sorted((row["front"] for row in table), reverse=True)
    text = markdown(found)
    assert "| trial | student.model.width | prune.ratio | validation % | bytes | p50 ms |" in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == 1 + len(found.front())
    assert f"work/search/tiny-sensor-random/front.png]({(home / 'work/search').as_uri()}/" in text


def test_a_search_that_runs_is_not_run_again_beside_itself(home: Path) -> None:
    found = made(home, [])
    with alone(found.folder, "mine"), pytest.raises(Busy, match="tiny-sensor-random is searched already"):
        found.run(1, None)


@pytest.fixture
def on_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same project, with studies that outlive their searches."""
    monkeypatch.setattr(optuna, "create_study", CREATE)
    return home


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"choices": SPACE.model_copy(update={"fix": {"student.train.epochs": 2}})}, "space"),
        ({"seed": 1}, "seed"),
    ],
)
def test_trials_of_another_search_are_not_mixed_in(on_disk: Path, changed: dict[str, Any], said: str) -> None:
    told = {"base": on_disk, "target": "sensor", "choices": SPACE, "sampler": "random", "seed": 0}
    Search(**told).run(1, None)
    Search(**told).run(2, None)
    with pytest.raises(
        ParamsError, match=rf"work/search/tiny-sensor-random holds trials of a search with other {said}\. "
    ):
        Search(**{**told, **changed})


def test_a_trial_that_was_cut_short_while_it_drew_keeps_what_it_had_and_draws_the_rest(on_disk: Path) -> None:
    width = made(on_disk, []).study.ask().suggest_categorical("student.model.width", [4, 8])
    said = list[str]()
    again = made(on_disk, said)
    again.run(1, None)
    assert said[0] == "trial 0 was cut short; it goes on"
    (trial,) = again.ended()
    assert trial.params.keys() == SPACE.choose.keys()
    assert trial.params["student.model.width"] == width


def test_what_was_told_before_a_kill_is_in_the_files_after_it(on_disk: Path) -> None:
    found = made(on_disk, [])
    found.run(3, None)
    (found.folder / "front.json").unlink()
    made(on_disk, []).run(3, None)
    assert (found.folder / "front.json").exists()


def test_a_search_of_which_nothing_came_through_has_no_front(home: Path) -> None:
    with pytest.raises(LimbeckError, match="none of 0 trials came through"):
        made(home, []).front()


def test_the_deployment_leaves_open_what_is_searched() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (found,) = [each for each in deployments if each["name"] == "search"]
    assert found["entrypoint"] == "flows/searching.py:search"
    assert found["parameters"] == {}
    assert "schedules" not in found


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_run_shows_its_trials_and_its_front_in_prefect(home: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter

    state = search("sensor", folder=home, knobs=Path("space.yaml"), trials=6, sampler="random", return_state=True)
    assert "trials are the front; work/search/tiny-sensor-random/front.json" in str(state.message)
    wanted = [f"search-tiny-sensor-random-{name}" for name in ("trials", "front")]
    with get_client(sync_client=True) as client:
        chosen = ArtifactFilter.model_validate({"key": {"any_": wanted}})
        found = {each.key: str(each.data) for each in client.read_artifacts(artifact_filter=chosen)}
    assert '"validation %"' in found[wanted[0]]
    assert "Take one over" in found[wanted[1]]
    refused = search("sensr", folder=home, knobs=Path("space.yaml"), return_state=True)
    assert refused.is_failed()
    assert "no target 'sensr'" in str(refused.message)
