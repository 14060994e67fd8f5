"""Teachers in the registry: Limbeck's own checkpoint folder as a version, shared and fetched back.

A version holds `model.json` and `weights.safetensors`, nothing that runs. What MLflow logs as a pytorch model is a
pickle, which runs code when it is read: it is refused.
"""

import shutil
from pathlib import Path
from typing import Any

from limbeck import checkpoint
from limbeck.errors import CheckpointError, TrackingError
from limbeck.tracking.server import asking, experiment_of, failures, is_missing, require, shown

FOLDER = "checkpoint"
DIGEST = "limbeck.checkpoint"
FILES = (checkpoint.SPEC, checkpoint.WEIGHTS)


def share_checkpoint(model: str, folder: Path, *, uri: str, experiment: str) -> str:
    """Make a checkpoint folder a version of `model`, unless its content is one; the version's number.

    Raises:
        CheckpointError: the folder is no checkpoint, or damaged.
        TrackingError: the server does not answer, or fails.

    """
    checkpoint.read(folder)
    digest = checkpoint.digest_of(folder)
    require(uri)
    with asking(uri) as client:
        known = client.search_model_versions(f"name = '{model}' and tags.`{DIGEST}` = '{digest}'")
        if known:
            return str(max((version.version for version in known), key=int))
        try:
            client.create_registered_model(model)
        except failures() as error:
            if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                raise
        run = client.create_run(experiment_of(client, uri, experiment), run_name=f"share {model}")
        for name in FILES:
            client.log_artifact(run.info.run_id, str(folder / name), FOLDER)
        client.set_terminated(run.info.run_id)
        source = f"{run.info.artifact_uri.rstrip('/')}/{FOLDER}"
        made = client.create_model_version(model, source, run.info.run_id, tags={DIGEST: digest})
        return str(made.version)


def fetch_checkpoint(name: str, into: Path, *, uri: str) -> Path:
    """Download the checkpoint folder of `models:/NAME/VERSION`; `into` is replaced.

    Raises:
        TrackingError: the server does not answer or fails, or has no such version.
        CheckpointError: the version holds no checkpoint of Limbeck's, or another one than was shared.

    """
    model, number = name.removeprefix("models:/").split("/")
    require(uri)
    with asking(uri) as client:
        import mlflow  # after the client has set its patience

        try:
            version = client.get_model_version(model, number)
        except failures() as error:
            if not is_missing(error):
                raise
            known = sorted((int(v.version) for v in client.search_model_versions(f"name = '{model}'")), reverse=True)
            hint = f"it has {', '.join(map(str, known[:5]))}" if known else "there is no such model"
            raise TrackingError(f"{shown(uri)} has no version {number} of {model!r}; {hint}.") from None
        place = client.get_model_version_download_uri(model, number).rstrip("/")
        found = {
            Path(item.path).name for item in mlflow.artifacts.list_artifacts(artifact_uri=place, tracking_uri=uri) or []
        }
        if not set(FILES) <= found:
            raise CheckpointError(_refusal(name, found))
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        for file in FILES:
            mlflow.artifacts.download_artifacts(artifact_uri=f"{place}/{file}", dst_path=str(into), tracking_uri=uri)
    _hold_against(version, into)
    return into


def _refusal(name: str, found: set[str]) -> str:
    """Why a version that holds other files is no teacher, and what to do about it."""
    kind = f"holds {', '.join(sorted(found)) or 'nothing'}"
    if "python_model.pkl" in found or ("MLmodel" in found and "data" in found):
        kind = "is a pickled model, which would run code when it is read"
    elif any(file.endswith(".onnx") for file in found):
        kind = "is an exported ONNX model, which has no architecture to fill or to adapt"
    return (
        f"{name} {kind}; expected {' and '.join(FILES)}. Share a teacher with `limbeck share FOLDER NAME`, or save the "
        "model's state dict (safetensors.torch.save_file) and use `teacher: {use: weights, ...}`."
    )


def _hold_against(version: Any, folder: Path) -> None:
    expected, found = version.tags.get(DIGEST), checkpoint.digest_of(folder)
    if expected is not None and expected != found:
        raise CheckpointError(
            f"version {version.version} of {version.name} came back with sha256 {found[:16]}..., shared was "
            f"{expected[:16]}...; its artifact was changed. Share it again."
        )
