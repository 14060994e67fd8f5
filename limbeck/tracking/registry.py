"""Versions of registered models: made once per content, found by alias, fetched as the very bytes exported."""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.edge import golden
from limbeck.edge import manifest as manifest_file
from limbeck.edge.manifest import sha256
from limbeck.edge.tokenizer import NAME as TOKENIZER
from limbeck.errors import TrackingError
from limbeck.recording import Report
from limbeck.selection import CANDIDATES
from limbeck.tracking.server import answers, asking, experiment_of, failures, find_run, is_missing, require, shown

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
BUNDLE = "extra_files"
"""Where `mlflow.onnx.log_model` puts files beside the model: the exported bytes, untouched by a re-serialization."""
LATER = "What was computed is kept; the same command registers later, when it does"


@dataclass(frozen=True)
class Version:
    """A version in the registry; `is_new` when this very call made it."""

    model: str
    number: str
    is_new: bool


def _find_version(client: Any, model: str, identity: str, variant: str | None) -> str | None:
    found = client.search_model_versions(f"name = '{model}' and tags.`limbeck.identity` = '{identity}'")
    numbers = [v.version for v in found if variant is None or v.tags.get("limbeck.variant") == variant]
    return str(max(numbers, key=int)) if numbers else None


def is_registered(name: str, identity: str, *, uri: str, variant: str | None = None) -> bool:
    """Whether a model has a version of this content (and variant, when given).

    A server that does not answer counts as having it: registering again could only fail, and whoever asks in
    order to register would go round in circles.
    """
    if not answers(uri):
        return True
    try:
        with asking(uri) as client:
            return _find_version(client, name, identity, variant) is not None
    except TrackingError:
        return True


def register(
    model: str,
    exported: Path,
    manifest: Mapping[str, Any],
    variant: str,
    *,
    tags: Mapping[str, str],
    report: Report,
    uri: str,
    experiment: str,
) -> Version:
    """Make the chosen file a version of `model`, unless its content is one; point `candidate` at the newest.

    The version is created with its identity in the same transaction: a kill before leaves a logged model that
    nothing points to, a kill after leaves the version to be found. Beside the model lie the exported files as
    they are, golden vectors and manifest.

    Args:
        model: name of the registered model.
        exported: folder of the exported files.
        manifest: theirs.
        variant: which of them ships.
        tags: see `tags_of`; `limbeck.identity` and `limbeck.variant` say whether it is there already.
        report: of the running stage, whose run this becomes part of.
        uri: the tracking server.
        experiment: its experiment.

    Raises:
        TrackingError: the server does not answer, or fails.

    """
    require(uri, LATER)
    with asking(uri) as client:
        number = _find_version(client, model, tags["limbeck.identity"], variant)
        is_new = number is None
        if number is None:
            try:
                client.create_registered_model(model)
            except failures() as error:
                if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment_id = experiment_of(client, uri, experiment)
            run_id = _own_run(client, experiment_id, report)
            # Made here, not by `log_model`: that one would put it into the experiment `Default`.
            model_id = client.create_logged_model(experiment_id, "model", source_run_id=run_id).model_id
            source = _log_model(uri, run_id, model_id, exported, manifest, variant)
            number = str(client.create_model_version(model, source, run_id, tags=dict(tags), model_id=model_id).version)
        elif lacking := tags.keys() - client.get_model_version(model, number).tags.keys():
            for key in sorted(lacking):  # made by an earlier Limbeck, which registered less
                client.set_model_version_tag(model, number, key, tags[key])
        newest = version_at(client, model, CANDIDATE)
        if newest is None or int(newest.version) < int(number):
            client.set_registered_model_alias(model, CANDIDATE, number)
        return Version(model, number, is_new)


def _own_run(client: Any, experiment_id: str, report: Report) -> str:
    """The run of the register stage itself; the replayer finds it by its tag and completes it."""
    found = find_run(client, experiment_id, "limbeck.spool", report.spool.name)
    if found:
        return found
    tags = {"limbeck.spool": report.spool.name, "limbeck.group": report.group, "limbeck.stage": report.stage}
    started = int(report.started.timestamp() * 1000)
    return str(client.create_run(experiment_id, start_time=started, tags=tags, run_name=report.stage).info.run_id)


def _log_model(uri: str, run_id: str, model_id: str, exported: Path, manifest: Mapping[str, Any], variant: str) -> str:
    """Fill a logged model: ONNX, signature, input example, and the exported files as they are. Where it is."""
    from importlib.metadata import version

    import mlflow
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    network = onnx.load(str(exported / f"{variant}.onnx"))

    def schema(values: Any) -> Schema:
        """As the file itself says; a dimension without a number is the batch."""
        tensors = []
        for value in values:
            kind = value.type.tensor_type
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
            tensors.append(TensorSpec(dtype, shape, value.name))
        return Schema(tensors)

    vectors = next(name for name in manifest["files"] if name.endswith(".npz"))
    inputs, _ = golden.read(exported / vectors, variant)
    variants = [f"{candidate}.onnx" for candidate in CANDIDATES if f"{candidate}.onnx" in manifest["files"]]
    mlflow.set_tracking_uri(uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logged = mlflow.onnx.log_model(
            network,
            run_id=run_id,
            model_id=model_id,
            signature=ModelSignature(schema(network.graph.input), schema(network.graph.output)),
            input_example=inputs[:2],
            pip_requirements=[f"{package}=={version(package)}" for package in ("numpy", "onnx", "onnxruntime")],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
            extra_files=[
                str((exported / name).resolve()) for name in (*variants, *_beside(manifest), manifest_file.NAME)
            ],
        )
    return str(logged.model_uri)


def _beside(manifest: Mapping[str, Any]) -> list[str]:
    """What ships beside every variant: golden vectors, and of text the tokenizer."""
    return [name for name in manifest["files"] if name.endswith(".npz") or name == TOKENIZER]


def version_at(client: Any, model: str, alias: str) -> Any:
    """The version that an alias points to, or None."""
    try:
        return client.get_model_version_by_alias(model, alias)
    except failures() as error:
        if not is_missing(error):
            raise
        return None


def fetch_file(client: Any, uri: str, version: Any, name: str, into: Path) -> Path:
    """Download a file of a version's bundle."""
    import mlflow

    place = client.get_model_version_download_uri(version.name, version.version)
    # Progress bars of single files are noise.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    found = mlflow.artifacts.download_artifacts(
        artifact_uri=f"{place.rstrip('/')}/{BUNDLE}/{name}", dst_path=str(into), tracking_uri=uri
    )
    return Path(found)


def fetch_model(client: Any, uri: str, version: Any, into: Path) -> Path:
    """Download the file that a version ships, held against its digest."""
    file = fetch_file(client, uri, version, f"{version.tags['limbeck.variant']}.onnx", into)
    expected, found = version.tags["limbeck.sha256"], sha256(file)
    if found != expected:
        raise TrackingError(
            f"version {version.version} of {version.name} came back with sha256 {found[:16]}..., registered was "
            f"{expected[:16]}...; its artifact was changed or cut short. Register it again."
        )
    return file


def fetch(model: str, alias: str, into: Path, *, uri: str) -> tuple[str, Path]:
    """Download the ONNX file that an alias points to, the very bytes that were exported; its version and the file.

    Raises:
        TrackingError: the server does not answer or fails, there is no such alias, or the file is damaged.

    """
    require(uri)
    with asking(uri) as client:
        version = version_at(client, model, alias)
        if version is None:
            raise TrackingError(f"{model} has no version with the alias {alias!r} at {uri}; register one first.")
        return str(version.version), fetch_model(client, uri, version, into)


def champion_of(model: str, *, uri: str) -> tuple[str, str] | None:
    """The champion's version and identity (sha256 of its manifest); None where a model has none.

    Raises:
        TrackingError: the server does not answer or fails.

    """
    require(uri)
    with asking(uri) as client:
        version = version_at(client, model, CHAMPION)
        return None if version is None else (str(version.version), version.tags["limbeck.identity"])


def is_at(model: str, alias: str, number: str, *, uri: str) -> bool:
    """Whether an alias points to this version.

    Raises:
        TrackingError: the server does not answer or fails.

    """
    require(uri)
    with asking(uri) as client:
        version = version_at(client, model, alias)
        return version is not None and str(version.version) == number


def version_of(model: str, identity: str, variant: str, *, uri: str) -> str:
    """The version of a content.

    Raises:
        TrackingError: the server does not answer or fails, or has none.

    """
    require(uri)
    with asking(uri) as client:
        number = _find_version(client, model, identity, variant)
    if number is None:
        raise TrackingError(f"{model} has no version of {identity[:16]}... at {shown(uri)}; register it again.")
    return number


def serial_at(model: str, alias: str, *, uri: str) -> str:
    """The number of the version that an alias points to.

    Raises:
        TrackingError: the server does not answer or fails, or there is no such alias.

    """
    require(uri)
    with asking(uri) as client:
        version = version_at(client, model, alias)
    if version is None:
        raise TrackingError(f"{model} has no version with the alias {alias!r} at {shown(uri)}; register one first.")
    return str(version.version)


def fetch_bundle(model: str, number: str, into: Path, *, uri: str) -> dict[str, str]:
    """Download a version's manifest, golden vectors, tokenizer and the file it ships, held against their digests; its tags.

    Raises:
        TrackingError: the server does not answer or fails, has no such version, or the version's files are not those
            that were registered.

    """
    require(uri)
    into.mkdir(parents=True, exist_ok=True)
    with asking(uri) as client:
        try:
            version = client.get_model_version(model, number)
        except failures() as error:
            if not is_missing(error):
                raise
            raise TrackingError(f"{shown(uri)} has no version {number} of {model!r}; see `limbeck report`.") from None
        tags = dict(version.tags)
        if "limbeck.identity" not in tags:
            raise TrackingError(
                f"version {number} of {model} was not registered by Limbeck's pipeline; it cannot ship."
            )
        manifest = fetch_file(client, uri, version, manifest_file.NAME, into)
        files = json.loads(manifest.read_bytes()) if sha256(manifest) == tags["limbeck.identity"] else {"files": {}}
        vectors = _beside(files)
        for name in vectors:
            fetch_file(client, uri, version, name, into)
        fetch_model(client, uri, version, into)
    if not vectors or any(sha256(into / name) != files["files"][name]["sha256"] for name in vectors):
        raise TrackingError(
            f"the files of version {number} of {model} are not those that were registered; its artifacts were changed "
            "or cut short. Register it again."
        )
    return tags


def mirror(model: str, alias: str, number: str | None, *, uri: str) -> str | None:
    """Let the registry show what was signed: the alias, and a tag of the model; what the alias said before.

    Args:
        model: name of the registered model.
        alias: champion or canary.
        number: the version that is served under it, None when none is.
        uri: the tracking server.

    Raises:
        TrackingError: the server does not answer or fails.

    """
    require(uri)
    with asking(uri) as client:
        before = version_at(client, model, alias)
        tag = f"limbeck.served.{alias}"
        if number is None:
            if before is not None:
                client.delete_registered_model_alias(model, alias)
            if tag in client.get_registered_model(model).tags:
                client.delete_registered_model_tag(model, tag)
        else:
            if before is None or str(before.version) != number:
                client.set_registered_model_alias(model, alias, number)
            client.set_registered_model_tag(model, tag, number)
        return None if before is None else str(before.version)


def versions(model: str, *, uri: str) -> list[str]:
    """A line per version that has an alias, champion first.

    Raises:
        TrackingError: the server does not answer or fails.

    """
    require(uri)
    by_version: dict[str, list[str]] = {}
    with asking(uri) as client:
        for alias in (CHAMPION, CANDIDATE, PREVIOUS):
            if (found := version_at(client, model, alias)) is not None:
                by_version.setdefault(str(found.version), []).append(alias)
    return [f"{model} version {number}: {', '.join(aliases)}" for number, aliases in by_version.items()]
