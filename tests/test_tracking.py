import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from limbeck import ledger, tracking
from limbeck.edge import golden
from limbeck.edge import manifest as manifest_file
from limbeck.edge.measure import open_session
from limbeck.errors import TrackingError
from limbeck.params import MeasureParams, load
from limbeck.recording import Report
from limbeck.tracking import Promotion, Replayer, Story, Version
from tests.conftest import TINY

EXPERIMENT = "limbeck"
MODEL = "digits-phone"
MEASURE = MeasureParams(warmup_runs=1, rounds=3, runs_per_round=1, bootstrap=100, seed=0)

# MLflow and the libraries below it warn about one another.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's schema takes seconds to make and milliseconds to copy."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracking._client(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LIMBECK_GROUP", "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    (folder / "params.yaml").write_text("name: digits\n")
    return folder


@pytest.fixture
def uri(workspace: Path, empty_database: Path) -> str:
    file = workspace / "mlflow.db"
    shutil.copy(empty_database, file)
    return f"sqlite:///{file}"


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A socket that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed_server() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def begun(stage: str = "distill@phone") -> Report:
    report = Report(stage)
    report.begin({"seed": 3, "train": {"lr": 0.1}}, "key")
    return report


def runs(uri: str, **tags: str) -> list[Any]:
    client = tracking._client(uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return []
    asked = " and ".join(f"tags.`limbeck.{key}` = '{value}'" for key, value in tags.items())
    return list(client.search_runs([found.experiment_id], asked))


def replayer(uri: str, group: str = "run-1") -> Replayer:
    return Replayer(Path(".limbeck/spool"), uri=uri, experiment=EXPERIMENT, group=group)


def forget_the_process(report: Report) -> None:
    """Let a spool file look as if its process had been killed."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    report.spool.rename(report.spool.with_name(f"{report.spool.stem.rsplit('-', 1)[0]}-{gone.pid}.jsonl"))


# Reaching the server


def test_a_file_needs_no_probe_and_an_away_server_is_away(closed_server: str, silent_server: str) -> None:
    assert tracking.probe("sqlite:///mlflow.db")
    assert not tracking.probe(closed_server)
    assert not tracking.probe(silent_server)


def test_a_malformed_address_is_named(workspace: Path) -> None:
    with pytest.raises(TrackingError, match=r"'htp:/nowhere' is no tracking URI; expected e.g. sqlite"):
        tracking.probe("htp:/nowhere")
    with pytest.raises(TrackingError, match="set tracking.uri in params.yaml, or MLFLOW_TRACKING_URI"):
        tracking.tracking_uri("htp:/nowhere")
    with pytest.raises(TrackingError, match="is no tracking URI"):
        replayer("htp:/nowhere")


def test_the_environment_wins_and_a_relative_database_lies_in_the_project(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tracking.ROOT / "work" / "cifar10"
    assert tracking.tracking_uri("sqlite:///mlflow.db", below) == f"sqlite:///{tracking.ROOT}/mlflow.db"
    assert tracking.tracking_uri("sqlite:///mlflow.db", workspace) == f"sqlite:///{workspace.resolve()}/mlflow.db"
    assert tracking.tracking_uri("sqlite:////srv/mlflow.db") == "sqlite:////srv/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking.tracking_uri("sqlite:///mlflow.db") == "http://127.0.0.1:5000"


# Runs


def test_a_stage_becomes_a_run_below_its_pipeline_run(uri: str, workspace: Path) -> None:
    (workspace / "data").mkdir()
    (workspace / "data/meta.json").write_text(json.dumps({"digest": "d" * 64, "name": "digits"}))
    (workspace / "picture.png").write_bytes(b"png")
    report = begun()
    report.curve({"epoch": 0, "arm": "student", "validation": 0.5})
    report.curve({"epoch": 1, "arm": "student", "validation": 0.7})
    report.artifact(Path("picture.png"))
    report.done({"quality": {"value": 0.7}})
    replay = replayer(uri)
    assert replay.poll() == 1
    replay.close()
    (run,) = runs(uri, stage="distill@phone")
    (parent,) = runs(uri, pipeline="run-1")
    client = tracking._client(uri)
    assert run.info.run_name == "distill@phone"
    assert run.info.status == parent.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.tags["limbeck.target"] == "phone"
    assert run.data.params == {"seed": "3", "train.lr": "0.1"}
    assert run.data.metrics == {"student/validation": 0.7, "quality.value": 0.7}
    history = client.get_metric_history(run.info.run_id, "student/validation")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (1, 0.7)]
    assert run.inputs.dataset_inputs[0].dataset.name == "digits"
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["picture.png"]
    assert run.info.artifact_uri.startswith((workspace / "mlruns").as_uri())
    assert parent.info.run_name.startswith("digits 2")
    assert [file.name for file in Path(".limbeck/spool").iterdir()] == ["lock"]


def test_a_stage_that_still_runs_is_followed_live(uri: str) -> None:
    report = begun()
    replay = replayer(uri)
    report.curve({"epoch": 0, "validation": 0.5})
    assert replay.poll() == 0
    (run,) = runs(uri, stage="distill@phone")
    assert (run.info.status, run.data.metrics) == ("RUNNING", {"validation": 0.5})
    report.curve({"epoch": 1, "validation": 0.7})
    with report.spool.open("a") as stream:
        stream.write('{"event": "metric", "st')  # half a line: the rest comes later
    replay.poll()
    (run,) = runs(uri, stage="distill@phone")
    assert run.data.metrics == {"validation": 0.7}
    replay.close()


def test_a_replayer_that_was_killed_is_taken_up_without_doubling_anything(uri: str) -> None:
    report = begun()
    report.curve({"epoch": 0, "validation": 0.5})
    first = replayer(uri)
    first.poll()
    assert first._lock is not None
    first._lock.close()  # as the kernel does for a process that is killed
    report.curve({"epoch": 1, "validation": 0.7})
    report.done({})
    second = replayer(uri, group="")
    assert second.poll() == 1
    second.close()
    (run,) = runs(uri, stage="distill@phone")
    history = tracking._client(uri).get_metric_history(run.info.run_id, "validation")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (1, 0.7)]
    assert runs(uri, pipeline="run-1")[0].info.status == "FINISHED"


def test_only_one_replayer_works_on_a_folder(uri: str) -> None:
    first, second = replayer(uri), replayer(uri)
    report = begun()
    first.poll()
    report.done({})
    assert second.poll() == 0
    assert first.poll() == 1
    first.close()


def test_a_failed_and_a_killed_stage_are_told_as_such(uri: str) -> None:
    begun("teacher").failed(ValueError("x"), "the loss is nan", 2)
    forget_the_process(begun("prune@phone"))
    assert tracking.replay_finished(uri=uri, experiment=EXPERIMENT) == 2
    (failed,), (killed,) = runs(uri, stage="teacher"), runs(uri, stage="prune@phone")
    assert (failed.info.status, killed.info.status) == ("FAILED", "KILLED")
    assert failed.data.tags["mlflow.note.content"] == "the loss is nan"
    assert runs(uri, pipeline="run-1")[0].info.status == "FAILED"


def test_what_has_no_beginning_and_no_process_is_cleared_away(uri: str) -> None:
    report = begun()
    report.spool.write_text("")
    forget_the_process(report)
    assert tracking.replay_finished(uri=uri, experiment=EXPERIMENT) == 0
    assert not list(Path(".limbeck/spool").glob("*.jsonl"))


def test_names_that_mlflow_refuses_are_mended(uri: str) -> None:
    report = begun()
    report.done({"a@b (c)": 1.0})
    tracking.replay_finished(uri=uri, experiment=EXPERIMENT)
    assert runs(uri, stage="distill@phone")[0].data.metrics == {"a_b _c_": 1.0}


def test_while_the_server_is_away_everything_stays_spooled(uri: str, closed_server: str) -> None:
    begun().done({})
    assert tracking.replay_finished(uri=closed_server, experiment=EXPERIMENT) == 0
    assert len(list(Path(".limbeck/spool").glob("*.jsonl"))) == 1
    assert tracking.replay_finished(uri=uri, experiment=EXPERIMENT) == 1


def test_a_spool_file_that_mlflow_refuses_is_put_aside_and_holds_up_nothing(uri: str) -> None:
    begun().done({})
    first = replayer(uri)
    spoiled = Path(".limbeck/spool/broken-20260101T000000000000-1.jsonl")
    spoiled.write_text('{"event": "begin", "stage": "teacher"}\n')  # neither group nor start
    assert first.poll() == 1
    first.close()
    assert [file.name for file in Path(".limbeck/spool").glob("*.rejected")] == [f"{spoiled.stem}.rejected"]
    assert tracking.answers(uri)


def test_params_that_contradict_an_earlier_replay_are_put_aside(uri: str) -> None:
    report = begun()
    first = replayer(uri)
    first.poll()
    first.close()
    report.spool.write_text(report.spool.read_text().replace('"seed": 3', '"seed": 4'))
    report.done({})
    assert tracking.replay_finished(uri=uri, experiment=EXPERIMENT) == 0
    assert report.spool.with_suffix(".rejected").exists()
    assert tracking.answers(uri), "the server is fine"


def test_pipeline_runs_are_told_apart(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun().done({})
    monkeypatch.setenv("LIMBECK_GROUP", "run-2")
    begun().done({})
    tracking.replay_finished(uri=uri, experiment=EXPERIMENT)
    assert len(runs(uri, pipeline="run-1")) == len(runs(uri, pipeline="run-2")) == 1


def test_a_report_can_be_put_beside_its_pipeline_run(uri: str, workspace: Path) -> None:
    begun().done({})
    tracking.replay_finished(uri=uri, experiment=EXPERIMENT)
    (workspace / "report.md").write_text("# fine")
    tracking.attach([workspace / "report.md"], uri=uri, experiment=EXPERIMENT, group="run-1")
    (parent,) = runs(uri, pipeline="run-1")
    assert [file.path for file in tracking._client(uri).list_artifacts(parent.info.run_id)] == ["report.md"]


# Lineage

LOCK = {
    "stages": {
        "prepare": {"cmd": "p", "outs": [{"path": "data", "md5": "1"}]},
        "teacher": {
            "cmd": "t",
            "deps": [{"path": "data", "md5": "1"}],
            "outs": [{"path": "models/teacher", "md5": "2"}],
        },
        "export@a": {
            "cmd": "e",
            "deps": [{"path": "models/teacher", "md5": "2"}],
            "outs": [{"path": "export/a", "md5": "3"}],
        },
        "export@b": {
            "cmd": "e",
            "deps": [{"path": "data/train", "md5": "9"}],
            "outs": [{"path": "export/b", "md5": "4"}],
        },
    }
}


def changed(stage: str, key: str, value: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(LOCK))
    copy["stages"][stage][key] = value
    return copy


def test_lineage_changes_with_an_ancestor_and_with_nothing_else() -> None:
    own = tracking.lineage(LOCK, "export@a")
    assert tracking.lineage(changed("prepare", "cmd", "q"), "export@a") != own
    assert tracking.lineage(changed("export@b", "cmd", "q"), "export@a") == own
    shuffled = {"stages": dict(reversed(LOCK["stages"].items()))}
    assert tracking.lineage(shuffled, "export@a") == own
    inside = tracking.lineage(LOCK, "export@b")  # depends on a folder inside an out
    assert tracking.lineage(changed("prepare", "cmd", "q"), "export@b") != inside


def test_a_stage_that_is_not_in_the_lock_has_no_lineage() -> None:
    assert tracking.lineage({}, "export@a") == "none"


def test_without_a_commit_the_lineage_says_so(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert tracking.git_state(tmp_path) == ("none", "true")


def test_what_the_run_itself_writes_makes_nothing_dirty(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *author, *arguments], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "params.yaml").write_text("a: 1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    (tmp_path / "dvc.lock").write_text("new")
    head, dirty = tracking.git_state(tmp_path)
    assert (len(head), dirty) == (40, "false")
    (tmp_path / "params.yaml").write_text("a: 2\n")
    assert tracking.git_state(tmp_path) == (head, "true")


# Versions


def write_export(folder: Path, weight: float, classes: int = 4, height: int = 1, width: int = 0) -> dict[str, Any]:
    """Real ONNX files on [batch, height, width, 1] that answer with the brightest of the first pixels, plus noise."""
    folder.mkdir(parents=True, exist_ok=True)
    width = width or classes
    table = np.eye(height * width, classes, dtype=np.float32)
    noise = np.random.default_rng(0).standard_normal(table.shape).astype(np.float32)
    network = helper.make_graph(
        [
            helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        "network",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", height, width, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(table + weight * noise, "w")],
    )
    model = helper.make_model(network, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for variant in ("teacher", "model.fp32", "model.int8"):
        onnx.save(model, str(folder / f"{variant}.onnx"))
    inputs = np.random.default_rng(0).integers(0, 17, (8, height, width, 1), dtype=np.uint8)
    answer = open_session(folder / "model.int8.onnx", 1).run(None, {"input": inputs})[0]
    golden.write(folder / "golden.npz", inputs, {"model.fp32": answer, "model.int8": answer})
    manifest_file.write(
        folder,
        name="digits",
        target="phone",
        classes=[str(i) for i in range(classes)],
        input={"name": "input", "shape": ["batch", height, width, 1], "dtype": "uint8"},
        data_digest="d" * 64,
        teacher_digest="e" * 64,
    )
    return manifest_file.read(folder)


def samples(classes: int, count: int) -> tuple[Any, Any]:
    labels = np.arange(count) % classes
    return (np.eye(classes, dtype=np.uint8)[labels] * 9).reshape(count, 1, classes, 1), labels


def register(
    uri: str, exported: Path, manifest: dict[str, Any], variant: str = "model.int8", model: str = MODEL
) -> Version:
    report = begun("register@phone")
    version = tracking.register(
        model,
        exported,
        manifest,
        variant,
        tags={
            "limbeck.identity": manifest_file.identity(exported),
            "limbeck.variant": variant,
            "limbeck.sha256": manifest["files"][f"{variant}.onnx"]["sha256"],
        },
        report=report,
        uri=uri,
        experiment=EXPERIMENT,
    )
    report.done({})
    return version


def promote(
    uri: str, version: Version, exported: Path, manifest: dict[str, Any], score: Any = None, margin: float = 0.01
) -> Promotion:
    x, y = samples(4, 16)

    def scores_of(file: Path) -> Any:
        logits = open_session(file, 1).run(None, {"input": x})[0]
        return (logits.argmax(1) == y).astype(np.float64)

    return tracking.promote(
        version,
        exported / "model.int8.onnx",
        manifest,
        scores_of=score or scores_of,
        measure=MEASURE,
        margin=margin,
        uri=uri,
        ledger_file=Path("ledger.jsonl"),
    )


def aliases(uri: str) -> dict[str, str]:
    return {alias: str(number) for alias, number in tracking._client(uri).get_registered_model(MODEL).aliases.items()}


def test_a_registered_version_loads_by_its_alias_and_answers_raw_input(uri: str, workspace: Path) -> None:
    import mlflow

    manifest = write_export(workspace / "export", 0.0)
    version = register(uri, workspace / "export", manifest)
    assert version == Version(MODEL, "1", True)
    assert promote(uri, version, workspace / "export", manifest).why == "the first champion"
    x, y = samples(4, 5)
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    answer = loaded.predict(x)
    logits = answer["logits"] if isinstance(answer, dict) else answer
    assert (np.asarray(logits).argmax(1) == y).all()
    inputs, outputs = loaded.metadata.signature.inputs, loaded.metadata.signature.outputs
    assert (inputs.inputs[0].shape, inputs.inputs[0].type) == ((-1, 1, 4, 1), np.dtype("uint8"))
    assert (outputs.inputs[0].name, outputs.inputs[0].shape) == ("logits", (-1, 4))
    assert loaded.metadata.saved_input_example_info is not None
    onnx.checker.check_model(mlflow.onnx.load_model(f"models:/{MODEL}@champion"))
    number, file = tracking.fetch(MODEL, "champion", workspace / "back", uri=uri)
    assert (number, file.read_bytes()) == ("1", (workspace / "export/model.int8.onnx").read_bytes())
    (bundle,) = (workspace / "mlruns").rglob("extra_files")
    assert {path.name for path in bundle.iterdir()} == {
        "golden.npz",
        "manifest.json",
        "model.fp32.onnx",
        "model.int8.onnx",
    }
    assert tracking.versions(MODEL, uri=uri) == [f"{MODEL} version 1: champion, candidate"]
    with pytest.raises(TrackingError, match="has no version with the alias 'previous'"):
        tracking.fetch(MODEL, "previous", workspace / "back", uri=uri)


def test_the_same_content_makes_one_version_and_the_stage_one_run_each_time(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "export", 0.0)
    identity = manifest_file.identity(workspace / "export")
    assert not tracking.is_registered(MODEL, identity, uri=uri)
    assert register(uri, workspace / "export", manifest).is_new
    assert register(uri, workspace / "export", manifest) == Version(MODEL, "1", False)
    assert tracking.is_registered(MODEL, identity, uri=uri)
    assert tracking.is_registered(MODEL, identity, uri=uri, variant="model.int8")
    assert not tracking.is_registered(MODEL, identity, uri=uri, variant="model.fp32")
    assert tracking.replay_finished(uri=uri, experiment=EXPERIMENT) == 2
    found = runs(uri, stage="register@phone")
    assert [run.info.status for run in found] == ["FINISHED"] * 2
    assert all(run.data.tags["mlflow.parentRunId"] for run in found)


def test_a_kill_before_the_version_leaves_no_second_one(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "export", 0.0)
    client = tracking._client(uri)
    client.create_registered_model(MODEL)
    killed = begun("register@phone")
    experiment = tracking._experiment(client, uri, EXPERIMENT)
    run_id = tracking._own_run(client, experiment, killed)
    logged = client.create_logged_model(experiment, "model", source_run_id=run_id)
    tracking._log_model(uri, run_id, logged.model_id, workspace / "export", manifest, "model.int8")
    forget_the_process(killed)  # the model is logged, the version is not made
    assert register(uri, workspace / "export", manifest) == Version(MODEL, "1", True)
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 1


def test_a_kill_between_version_and_alias_is_mended_by_the_same_command(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "export", 0.0)
    register(uri, workspace / "export", manifest)
    tracking._client(uri).delete_registered_model_alias(MODEL, "candidate")
    register(uri, workspace / "export", manifest)
    assert aliases(uri) == {"candidate": "1"}


def test_a_challenger_within_the_margin_takes_over_and_a_worse_one_does_not(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "a", 0.0)
    promote(uri, register(uri, workspace / "a", manifest), workspace / "a", manifest)
    worse = write_export(workspace / "b", 5.0)
    second = register(uri, workspace / "b", worse)
    refused = promote(uri, second, workspace / "b", worse)
    assert not refused.moved
    assert "so the champion stays" in refused.why
    assert aliases(uri) == {"candidate": "2", "champion": "1"}
    taken = promote(uri, second, workspace / "b", worse, margin=1.0)
    assert taken.moved
    assert aliases(uri) == {"candidate": "2", "champion": "2", "previous": "1"}
    entries = ledger.read(Path("ledger.jsonl"))
    assert [(entry.previous, entry.version) for entry in entries] == [(None, "1"), ("1", "2")]
    assert "version 2 scores" in entries[1].why


def test_a_champion_of_another_task_is_not_compared(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "a", 0.0)
    promote(uri, register(uri, workspace / "a", manifest), workspace / "a", manifest)
    other = write_export(workspace / "b", 0.0, classes=5)
    kept = promote(uri, register(uri, workspace / "b", other), workspace / "b", other)
    assert not kept.moved
    assert "champion 1 has other classes than version 2" in kept.why


def test_a_move_that_the_ledger_missed_is_recorded_by_the_next_call(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "a", 0.0)
    version = register(uri, workspace / "a", manifest)
    tracking._client(uri).set_registered_model_alias(MODEL, "champion", "1")  # and killed here
    assert not promote(uri, version, workspace / "a", manifest).moved
    assert not promote(uri, version, workspace / "a", manifest).moved
    (entry,) = ledger.read(Path("ledger.jsonl"))
    assert (entry.version, entry.why.split(":")[0]) == ("1", "found in place")


def test_a_champion_whose_file_was_damaged_is_named(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "a", 0.0)
    promote(uri, register(uri, workspace / "a", manifest), workspace / "a", manifest)
    for file in (workspace / "mlruns").rglob("model.int8.onnx"):
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(TrackingError, match="version 1 of digits-phone came back with sha256"):
        tracking.fetch(MODEL, "champion", workspace / "back", uri=uri)


def test_an_away_server_refuses_to_register_and_counts_as_having_it(closed_server: str, workspace: Path) -> None:
    manifest = write_export(workspace / "export", 0.0)
    with pytest.raises(TrackingError, match=r"does not answer. Everything else is done; the same command registers"):
        register(closed_server, workspace / "export", manifest)
    assert tracking.is_registered(MODEL, "any", uri=closed_server)


def test_a_person_is_told_the_versions_and_shown_the_champion(uri: str, workspace: Path, data: Path) -> None:
    shutil.copy(TINY, workspace / "params.yaml")
    (workspace / "data").symlink_to(data)
    target, name = next(iter(load(TINY).targets)), load(TINY).name
    model = f"{name}-{target}"
    assert tracking.story(workspace) == Story([], "")
    exported = workspace / "export" / target
    manifest = write_export(exported, 0.0, 10, 8, 8)
    promote(uri, register(uri, exported, manifest, model=model), exported, manifest, score=lambda file: np.ones(4))
    told = tracking.story(workspace, lambda images, captions: f"{images.shape} {captions[0]}")
    assert told.versions == [f"{model} version 1: champion, candidate"]
    assert re.fullmatch(r"\(3, 8, 8, 1\) champion \d\nteacher  \d\ntruth    0", told.samples)


def test_a_person_is_told_that_the_registry_is_away(
    workspace: Path, closed_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(TINY, workspace / "params.yaml")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed_server)
    assert "does not answer. Repeat the command when it does" in tracking.story(workspace).versions[0]


@pytest.mark.slow
def test_a_real_server_keeps_runs_and_versions(workspace: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = [
        "--backend-store-uri",
        f"sqlite:///{workspace}/server.db",
        "--artifacts-destination",
        str(workspace / "kept"),
    ]
    with (workspace / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, *places], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        limit = time.monotonic() + 90
        while not tracking.probe(uri):
            assert time.monotonic() < limit, (workspace / "server.log").read_text()
            time.sleep(0.5)
        begun().done({"quality": 0.5})
        assert tracking.replay_finished(uri=uri, experiment=EXPERIMENT) == 1
        manifest = write_export(workspace / "export", 0.0)
        version = register(uri, workspace / "export", manifest)
        assert promote(uri, version, workspace / "export", manifest).moved
        assert register(uri, workspace / "export", manifest) == Version(MODEL, "1", False)
        number, file = tracking.fetch(MODEL, "champion", workspace / "back", uri=uri)
        assert (number, file.read_bytes()) == ("1", (workspace / "export/model.int8.onnx").read_bytes())
        assert len(runs(uri, pipeline="run-1")) == 1
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)
        tracking.forget(uri)
