from pathlib import Path

import pytest

from flows import environment


@pytest.fixture(autouse=True)
def _no_server_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_relative_database_belongs_to_the_project_for_its_workspaces() -> None:
    root = environment.ROOT
    assert environment.tracking_uri("sqlite:///mlflow.db", root / "work/x") == f"sqlite:///{root}/mlflow.db"


def test_a_relative_database_stays_in_a_folder_outside_the_project(tmp_path: Path) -> None:
    assert environment.tracking_uri("sqlite:///mlflow.db", tmp_path) == f"sqlite:///{tmp_path.resolve()}/mlflow.db"


@pytest.mark.parametrize("uri", ["sqlite:////srv/mlflow.db", "http://127.0.0.1:5000"])
def test_other_addresses_are_handed_on(uri: str) -> None:
    assert environment.tracking_uri(uri, environment.ROOT) == uri


def test_the_environment_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert environment.tracking_uri("sqlite:///mlflow.db", environment.ROOT) == "http://127.0.0.1:5000"


def test_a_stage_knows_its_run_and_whom_not_to_outlive() -> None:
    given = environment.for_stages(group="g", mark={"LIMBECK_RUN": "m"}, uri="sqlite:///x.db")
    assert (given["LIMBECK_GROUP"], given["LIMBECK_RUN"], given["LIMBECK_REPLAY"]) == ("g", "m", "flow")
    assert given["LIMBECK_WATCH"].isdigit()
    assert given["MLFLOW_DISABLE_TELEMETRY"] == "true"
