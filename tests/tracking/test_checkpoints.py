"""Teachers in the registry: shared, fetched, and refused where they would run code."""

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck import checkpoint, models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.errors import CheckpointError, TrackingError
from limbeck.tracking.checkpoints import fetch_checkpoint, share_checkpoint
from limbeck.tracking.server import experiment_of, open_client
from tests.tracking.conftest import register, write_export


@pytest.fixture
def folder(workspace: Path) -> Path:
    return saved(workspace / "teacher", seed=0)


def saved(folder: Path, seed: int) -> Path:
    spec = Spec(
        model=Component.model_validate({"use": "convnet", "width": 4, "depth": 2}), shape=(8, 8, 1), dtype="uint8",
        classes=("a", "b"), mean=(1.0,), std=(1.0,),
    )  # fmt: skip
    torch.manual_seed(seed)
    models.save(folder, spec, models.build(spec))
    return folder


def share(folder: Path, uri: str, name: str = "made-teacher") -> str:
    return share_checkpoint(name, folder, uri=uri, experiment="limbeck")


def test_a_shared_checkpoint_comes_back_to_the_byte(workspace: Path, folder: Path, uri: str) -> None:
    number = share(folder, uri)
    fetched = fetch_checkpoint(f"models:/made-teacher/{number}", workspace / "fetched", uri=uri)
    assert sorted(path.name for path in fetched.iterdir()) == ["model.json", "weights.safetensors"]
    assert checkpoint.digest_of(fetched) == checkpoint.digest_of(folder)
    checkpoint.read(fetched)


def test_equal_content_is_one_version_other_content_another(workspace: Path, folder: Path, uri: str) -> None:
    assert share(folder, uri) == share(folder, uri) == "1"
    assert share(saved(workspace / "other", seed=1), uri) == "2"


def test_what_lay_at_the_place_before_is_gone(workspace: Path, folder: Path, uri: str) -> None:
    share(folder, uri)
    (workspace / "fetched").mkdir()
    (workspace / "fetched" / "stale").touch()
    fetched = fetch_checkpoint("models:/made-teacher/1", workspace / "fetched", uri=uri)
    assert not (fetched / "stale").exists()


def test_a_version_or_model_that_is_not_there_is_named_with_what_is(workspace: Path, folder: Path, uri: str) -> None:
    share(folder, uri)
    with pytest.raises(TrackingError, match=r"has no version 7 of 'made-teacher'; it has 1"):
        fetch_checkpoint("models:/made-teacher/7", workspace / "fetched", uri=uri)
    with pytest.raises(TrackingError, match=r"has no version 1 of 'nobody'; there is no such model"):
        fetch_checkpoint("models:/nobody/1", workspace / "fetched", uri=uri)


def registered(uri: str, files: dict[str, bytes], workspace: Path) -> None:
    """A version of `theirs` that holds other files."""
    client: Any = open_client(uri)
    run = client.create_run(experiment_of(client, uri, "theirs"))
    for name, content in files.items():
        path = workspace / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    client.log_artifacts(run.info.run_id, str(workspace / "made"), "model")
    client.create_registered_model("theirs")
    client.create_model_version("theirs", f"{run.info.artifact_uri}/model", run.info.run_id)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"MLmodel": b"flavors: {pytorch: {}}", "data/model.pth": b"x"}, r"is a pickled model, which would run code when it"),
        ({"MLmodel": b"flavors: {python_function: {}}", "python_model.pkl": b"x"}, r"is a pickled model, which would run"),
        ({"MLmodel": b"flavors: {onnx: {}}", "model.onnx": b"x"}, r"is an exported ONNX model, which has no architecture"),
        ({"notes.txt": b"x"}, r"holds notes.txt; expected model.json and weights.safetensors. Share a teacher with"),
    ],
)  # fmt: skip
def test_a_version_of_another_make_is_refused_unread(
    workspace: Path, uri: str, files: dict[str, bytes], message: str
) -> None:
    registered(uri, files, workspace)
    with pytest.raises(CheckpointError, match=message):
        fetch_checkpoint("models:/theirs/1", workspace / "fetched", uri=uri)
    assert not (workspace / "fetched").exists()


def test_a_student_of_ours_is_no_teacher(workspace: Path, uri: str) -> None:
    manifest = write_export(workspace / "exported", weight=0.1)
    version = register(uri, workspace / "exported", manifest)
    with pytest.raises(CheckpointError, match=r"is an exported ONNX model, .* Share a teacher with `limbeck share"):
        fetch_checkpoint(f"models:/{version.model}/{version.number}", workspace / "fetched", uri=uri)


def test_an_artifact_that_was_changed_is_refused(workspace: Path, folder: Path, uri: str) -> None:
    share(folder, uri)
    (stored,) = workspace.glob("mlruns/**/model.json")
    stored.write_text(stored.read_text().replace('"convnet"', '"resnet"'))
    with pytest.raises(CheckpointError, match=r"came back with sha256 .* its artifact was changed"):
        fetch_checkpoint("models:/made-teacher/1", workspace / "fetched", uri=uri)


def test_a_server_that_is_away_is_one_error(workspace: Path, folder: Path, closed_server: str) -> None:
    with pytest.raises(TrackingError, match="does not answer"):
        share(folder, closed_server)
    with pytest.raises(TrackingError, match="does not answer"):
        fetch_checkpoint("models:/made-teacher/1", workspace / "fetched", uri=closed_server)


def test_a_damaged_checkpoint_is_not_shared(workspace: Path, folder: Path, uri: str) -> None:
    (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is corrupt or truncated"):
        share(folder, uri)
