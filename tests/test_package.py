"""What `pip install limbeck` brings, and what it does not."""

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT


def test_the_devices_part_depends_on_numpy_onnxruntime_and_the_update_client_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>]", requirement)[0] for requirement in project["dependencies"]}
    # the last two come with tuf and onnxruntime; they are named because the agent imports them itself
    assert names == {"numpy", "onnxruntime", "tuf", "securesystemslib", "urllib3", "packaging"}


@pytest.mark.slow
def test_the_wheel_alone_measures_a_file_in_a_bare_environment(tmp_path: Path) -> None:
    from tests.edge.conftest import write_onnx

    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("limbeck-*.whl")
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    bench = [tmp_path / "bare" / "bin" / "limbeck-edge", "bench", write_onnx(tmp_path / "tiny.onnx"), "--rounds", "3"]
    done = subprocess.run([*bench], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "p95 ms" in done.stdout
    limbeck = subprocess.run([tmp_path / "bare" / "bin" / "limbeck", "report"], capture_output=True, text=True)
    assert (limbeck.returncode, limbeck.stderr) == (2, "")
    assert "pip install 'limbeck[pipeline]'" in limbeck.stdout
    absent = "import importlib.util as u; assert not any(map(u.find_spec, ('torch', 'mlflow', 'prefect', 'dvc')))"
    subprocess.run([python, "-c", absent], check=True, cwd=tmp_path)
