import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.errors import TrackingError
from limbeck.tracking import server
from tests.conftest import ROOT
from tests.tracking.conftest import replayer


def test_a_file_needs_no_probe_and_an_away_server_is_away(closed_server: str, silent_server: str) -> None:
    assert server.probe("sqlite:///mlflow.db")
    assert not server.probe(closed_server)
    assert not server.probe(silent_server)


def test_processes_that_meet_at_a_new_database_make_its_tables_once(tmp_path: Path) -> None:
    code = "import sys; from limbeck.tracking.server import open_client; open_client(sys.argv[1]).search_experiments()"
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/mlflow.db"]
    several = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in several]
    assert [process.returncode for process in several] == [0, 0], errors


def test_a_malformed_address_is_named(workspace: Path) -> None:
    with pytest.raises(TrackingError, match=r"'htp:/nowhere' is no tracking URI; expected e.g. sqlite"):
        server.probe("htp:/nowhere")
    with pytest.raises(TrackingError, match="set tracking.uri in params.yaml, or MLFLOW_TRACKING_URI"):
        server.tracking_uri("htp:/nowhere")
    with pytest.raises(TrackingError, match="is no tracking URI"):
        replayer("htp:/nowhere")


def test_the_environment_wins_and_a_relative_database_lies_in_the_project(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = server.ROOT / "work" / "cifar10"
    assert server.tracking_uri("sqlite:///mlflow.db", below) == f"sqlite:///{server.ROOT}/mlflow.db"
    assert server.tracking_uri("sqlite:///mlflow.db", workspace) == f"sqlite:///{workspace.resolve()}/mlflow.db"
    assert server.tracking_uri("sqlite:////srv/mlflow.db") == "sqlite:////srv/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert server.tracking_uri("sqlite:///mlflow.db") == "http://127.0.0.1:5000"


def test_no_password_stands_in_a_message(closed_server: str) -> None:
    secret = closed_server.replace("http://", "http://user:hunter2@")
    with pytest.raises(TrackingError, match="does not answer") as away:
        server.require(secret)
    with pytest.raises(TrackingError, match="is no tracking URI") as malformed:
        server.probe("htp://user:hunter2@nowhere")
    assert "hunter2" not in f"{away.value} {malformed.value}"
    assert closed_server.removeprefix("http://") in str(away.value)


def test_a_database_without_its_driver_and_one_that_is_none_are_said(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("not a database, but long enough to be taken for one at first sight" * 20)
    for uri in (f"sqlite:///{tmp_path}/no.db", "mysql://127.0.0.1/none"):
        with (
            pytest.raises(TrackingError, match=r"(?s)failed: .* The same command goes on later"),
            server.asking(uri) as client,
        ):
            client.search_experiments()
