"""A policy's way through the house: what plays it, what ships, what a device answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck import export, models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.edge import EdgeError, trial
from limbeck.edge import update as updating
from limbeck.edge.agent import Agent
from limbeck.edge.fetch import Folder
from limbeck.edge.measure import answering
from limbeck.errors import ParamsError
from limbeck.evaluation import is_played
from limbeck.params import SplitParams
from limbeck.prediction import NetworkScorer, predict
from limbeck.refresh import gate
from tests import worlds
from tests.conftest import Remembering
from tests.edge import delivery
from tests.edge.delivery import Publisher, provisioned

METRIC = "episode_return"
BEFORE_THE_WALL = np.array([[0.0, 0.1], [2.5, -1.0]], np.float32)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of a world on a line, whose expert leaves a checkpoint."""
    folder = tmp_path_factory.mktemp("line") / "data"
    expert = {
        "width": 8, "depth": 1, "steps": 256, "hold": 1, "environments": 4, "horizon": 16, "epochs": 2, "batch_size": 32,
        "lr": 0.01, "discount": 0.9, "smoothing": 0.9, "clip": 0.2, "entropy": 0.01,
    }  # fmt: skip
    source = open_source(Component.model_validate({"use": "episodes", **worlds.settings(expert=expert)}))
    splits.write(folder, source, SplitParams(test=None, validation=0.2, calibration=0.1), 0)
    return folder


@pytest.fixture(scope="module")
def spec(line: Path) -> Spec:
    meta = splits.read_meta(line)
    model = Component.model_validate({"use": "mlp", "width": 6, "depth": 1})
    return Spec(model=model, shape=(2,), dtype="float32", classes=meta.classes, mean=meta.mean, std=meta.std)


@pytest.fixture(scope="module")
def walker(spec: Spec) -> models.Network:
    """Turns back at 2, so that its episodes differ; what it does there, its chance input decides."""
    torch.manual_seed(0)
    network = models.build(spec).eval()
    with torch.no_grad():
        network.body.head.bias.copy_(torch.tensor([0.0, 0.4]))
    return network


@pytest.fixture(scope="module")
def file(walker: models.Network, spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "model.onnx"
    export.to_onnx(path, walker, spec, 18, {})
    return path


def test_a_metric_plays_or_scores() -> None:
    assert is_played(METRIC)
    assert not is_played("accuracy")


def test_a_network_and_its_file_play_the_same_episodes(line: Path, walker: models.Network, file: Path) -> None:
    score = NetworkScorer(METRIC, line)
    for split, num in (("validation", 4), ("test", 6)):
        with answering(file, threads=1, batch_size=4) as answers:
            assert np.array_equal(score(answers, split), score.of_model(walker, split))  # type: ignore[arg-type]
        assert len(score.of_model(walker, split)) == num  # type: ignore[arg-type]
    assert score.quality(walker) == score.of_model(walker, "validation").mean()


def test_accuracy_on_the_same_data_is_agreement_with_the_expert(line: Path, walker: models.Network) -> None:
    x, y = splits.read(line, "test")
    assert (
        NetworkScorer("accuracy", line).of_model(walker, "test").tolist()
        == (predict(walker, x).argmax(1) == y).tolist()
    )


def test_a_metric_that_plays_needs_a_world(data: Path) -> None:
    with pytest.raises(ParamsError, match="come from no world .source 'digits'.*use: episodes.* or metric: accuracy"):
        NetworkScorer(METRIC, data)


def test_the_expert_that_prepare_left_is_the_teacher(line: Path, tmp_path: Path, report: Remembering) -> None:
    from limbeck.params import CheckpointTeacher, Unused
    from stages.teacher import run

    section = CheckpointTeacher(
        use="checkpoint", folder=line / "expert", sha256=None, trust=(), adapt=Unused(use="none")
    )
    figures = run(data=line, out=tmp_path / "t", teacher=section, metric=METRIC, seed=0, report=report)  # type: ignore[arg-type]
    assert figures["test"] == NetworkScorer(METRIC, line).quality(models.load(line / "expert")[1], "test")
    assert not report.warnings, "what prepare made is watched"


def test_a_refresh_refuses_to_hold_episodes_against_samples(line: Path, file: Path) -> None:
    with pytest.raises(ParamsError, match="plays episodes, while a refresh .* sample by sample.*metric: accuracy"):
        gate.score(file, file, line, "validation", METRIC, threads=1)


@pytest.fixture
def agent(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A device that proved a policy's golden vectors and serves it."""
    monkeypatch.setattr(delivery, "INPUTS", BEFORE_THE_WALL)
    publisher = Publisher(tmp_path / "stick")
    home = provisioned(publisher, tmp_path)
    described = {"name": "input", "shape": ["batch", 2], "dtype": "float32"}
    publisher.publish(1, file=file, input=described, classes=["left", "right"])
    assert updating.update(home, Folder(publisher.folder), prove=trial.examine).kind == "switched"
    with Agent(home.path, updates=False) as running:
        yield running


def test_a_device_proves_a_policys_golden_vectors_and_decides(agent: Agent, walker: models.Network) -> None:
    expected = predict(walker, BEFORE_THE_WALL)
    assert np.allclose(agent.predict(BEFORE_THE_WALL), expected, atol=1e-5)
    names = ("left", "right")
    assert [answer.label for answer in agent.classify(BEFORE_THE_WALL)] == [names[k] for k in expected.argmax(1)]


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.array([[0.0, np.nan]], np.float32), r"the value at \[0, 1\] is nan; expected finite numbers"),
        (np.array([[np.inf, 0.0]], np.float32), r"the value at \[0, 0\] is inf"),
        (np.zeros((1, 3), np.float32), r"takes float32 \[batch, 2\], raw; found float32 \[1, 3\]"),
        (np.zeros(2, np.float32), r"found float32 \[2\]"),
        (np.zeros((1, 2)), r"found float64 \[1, 2\]"),
    ],
    ids=["NaN", "infinity", "too many features", "no batch", "float64"],
)
def test_a_device_says_what_is_wrong_with_an_observation(agent: Agent, observation: Any, message: str) -> None:
    with pytest.raises(EdgeError, match=message):
        agent.predict(observation)
