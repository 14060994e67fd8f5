import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck import cli
from tests.conftest import ROOT, TINY


def limbeck(*arguments: str | Path, **more: str) -> "subprocess.CompletedProcess[str]":

    command = [sys.executable, "-c", "from limbeck.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_help_names_the_commands_and_how_the_pipeline_itself_runs() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"]).stdout
    assert "report" in shown
    assert "replay" in shown
    assert "dvc repro" in shown


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("report", "holds no benchmarked target yet; run `dvc repro` or `make run` first."),
        ("replay", "does not answer. Repeat the command when it does"),
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
