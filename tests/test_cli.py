import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck import cli, models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from tests.conftest import ROOT, TINY


def limbeck(*arguments: str | Path, **more: str) -> "subprocess.CompletedProcess[str]":

    command = [sys.executable, "-c", "from limbeck.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_help_names_the_commands_and_how_the_pipeline_itself_runs() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"]).stdout
    assert "report" in shown
    assert "replay" in shown
    assert "share" in shown
    assert "plan" in shown
    assert "publish" in shown
    assert "rollback" in shown
    assert "dvc repro" in shown


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("report", "holds no benchmarked target yet; run `dvc repro` or `make run` first."),
        ("replay", "does not answer. Repeat the command when it does"),
        ("renew", "make them with `limbeck keys init`."),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_code_2(
    tmp_path: Path, closed_server: str, command: str, message: str
) -> None:
    (tmp_path / "params.yaml").write_text(TINY.read_text())
    done = limbeck(command, "--workspace", tmp_path, MLFLOW_TRACKING_URI=closed_server)
    assert done.returncode == 2
    assert done.stderr.startswith("limbeck: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_params_is_named(tmp_path: Path) -> None:
    done = limbeck("replay", "--workspace", tmp_path)
    assert done.returncode == 2
    assert "params.yaml is missing; run in the project's folder" in done.stderr


def test_a_plan_needs_prepared_data_and_a_target_that_exists(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(TINY.read_text())
    done = limbeck("plan", "--workspace", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "limbeck: data/meta.json is missing; run `dvc repro prepare`.\n"
    done = limbeck("plan", "--workspace", tmp_path, "--target", "senzor")
    assert done.stderr == "limbeck: params.yaml has no target 'senzor'; did you mean 'sensor'?\n"


def test_a_checkpoint_is_shared_under_the_name_that_a_teacher_asks_for(workspace: Path, uri: str) -> None:
    (workspace / "params.yaml").write_text(TINY.read_text())
    spec = Spec(
        model=Component.model_validate({"use": "convnet", "width": 4, "depth": 2}), shape=(8, 8, 1), dtype="uint8",
        classes=("a", "b"), mean=(1.0,), std=(1.0,),
    )  # fmt: skip
    models.save(workspace / "teacher", spec, models.build(spec))
    done = limbeck("share", workspace / "teacher", "made-teacher", "--workspace", workspace, MLFLOW_TRACKING_URI=uri)
    assert (done.returncode, done.stdout.strip()) == (0, "models:/made-teacher/1")
    done = limbeck("share", workspace / "nothing", "made-teacher", "--workspace", workspace, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 2
    assert "holds no model.json; expected a Limbeck checkpoint" in done.stderr
