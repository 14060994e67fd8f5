"""What tests share: a tiny data set on disk, a reporter that remembers, tiny settings."""

import os
import shutil
import socket
import warnings
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DVC_NO_ANALYTICS"] = "1"

import pytest
import torch
from hypothesis import settings as hypothesis_settings

from limbeck import params
from limbeck.components import Component
from limbeck.params import Params, TrainParams

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "tiny.yaml"

torch.set_num_threads(1)  # several workers share the processors

# a loaded machine is no bug: deadlines off, examples the same every time
hypothesis_settings.register_profile("limbeck", deadline=None, derandomize=True, max_examples=30)
hypothesis_settings.load_profile("limbeck")


class Remembering:
    """A fake `Report`: keeps what it is told."""

    def __init__(self, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self.scratch = scratch
        self.rows: list[dict[str, float | str]] = []
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.steps: list[int] = []

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.steps.append(done)

    def curve(self, row: dict[str, float | str]) -> None:
        self.rows.append(row)

    def log(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop catches it."""


class KilledAt(Remembering):
    """A reporter whose process dies at a step."""

    def __init__(self, scratch: Path, step: int) -> None:
        super().__init__(scratch)
        self.step = step

    def progress(self, done: int, total: int, note: str = "") -> None:
        super().progress(done, total)
        if done == self.step:
            raise Killed


@pytest.fixture
def report(tmp_path: Path) -> Remembering:
    return Remembering(tmp_path / "scratch")


@pytest.fixture(scope="session")
def tiny() -> Params:
    return params.load(TINY)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, tiny: Params) -> Path:
    """scikit-learn's digits, prepared; never written to."""
    from limbeck.data import splits
    from limbeck.data.sources.digits import digits

    folder = tmp_path_factory.mktemp("digits") / "data"
    splits.write(folder, digits(), tiny.data.split, tiny.seed)
    return folder


@pytest.fixture
def settings(tiny: Params) -> TrainParams:
    return tiny.teacher.train.model_copy(update={"epochs": 2, "lr": 0.1})


@pytest.fixture(scope="session")
def small() -> Component:
    return Component(use="convnet", width=4, depth=2)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's schema takes seconds to make and milliseconds to copy."""
    from limbeck.tracking.server import open_client

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_client(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a params file, to stand in."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LIMBECK_GROUP", "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    (folder / "params.yaml").write_text("name: digits\n")
    return folder


@pytest.fixture
def uri(workspace: Path, empty_database: Path) -> str:
    """A tracking database in the workspace."""
    file = workspace / "mlflow.db"
    shutil.copy(empty_database, file)
    return f"sqlite:///{file}"


@pytest.fixture
def closed_server() -> str:
    """The address of a server that is away."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"
