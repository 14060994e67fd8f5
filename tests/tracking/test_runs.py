import json
from pathlib import Path

import pytest

from limbeck.tracking import server
from limbeck.tracking.runs import attach, replay_finished
from limbeck.tracking.server import open_client
from tests.tracking.conftest import (
    EXPERIMENT,
    begun,
    forget_the_process,
    replayer,
    runs,
)


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
    client = open_client(uri)
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


def test_a_run_shows_its_curves_and_answers_as_pictures(uri: str, workspace: Path) -> None:
    (workspace / "distill.csv").write_text("arm,epoch,validation\nstudent,0,0.5\nstudent,1,0.7\n")
    (workspace / "confusion.csv").write_text("actual,fp32,int8\na,a,b\nb,b,b\n")
    report = begun()
    for name in ("distill.csv", "confusion.csv"):
        report.artifact(Path(name))
    report.done({})
    replay = replayer(uri)
    assert replay.poll() == 1
    replay.close()
    (run,) = runs(uri, stage="distill@phone")
    assert {file.path for file in open_client(uri).list_artifacts(run.info.run_id)} == {
        *("distill.csv", "confusion.csv"),
        *("training.png", "confusion fp32.png", "confusion int8.png"),
    }


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
    history = open_client(uri).get_metric_history(run.info.run_id, "validation")
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
    assert replay_finished(uri=uri, experiment=EXPERIMENT) == 2
    (failed,), (killed,) = runs(uri, stage="teacher"), runs(uri, stage="prune@phone")
    assert (failed.info.status, killed.info.status) == ("FAILED", "KILLED")
    assert failed.data.tags["mlflow.note.content"] == "the loss is nan"
    assert runs(uri, pipeline="run-1")[0].info.status == "FAILED"


def test_what_has_no_beginning_and_no_process_is_cleared_away(uri: str) -> None:
    report = begun()
    report.spool.write_text("")
    forget_the_process(report)
    assert replay_finished(uri=uri, experiment=EXPERIMENT) == 0
    assert not list(Path(".limbeck/spool").glob("*.jsonl"))


def test_names_that_mlflow_refuses_are_mended(uri: str) -> None:
    report = begun()
    report.done({"a@b (c)": 1.0})
    replay_finished(uri=uri, experiment=EXPERIMENT)
    assert runs(uri, stage="distill@phone")[0].data.metrics == {"a_b _c_": 1.0}


def test_while_the_server_is_away_everything_stays_spooled(uri: str, closed_server: str) -> None:
    begun().done({})
    assert replay_finished(uri=closed_server, experiment=EXPERIMENT) == 0
    assert len(list(Path(".limbeck/spool").glob("*.jsonl"))) == 1
    assert replay_finished(uri=uri, experiment=EXPERIMENT) == 1


def test_a_spool_file_that_mlflow_refuses_is_put_aside_and_holds_up_nothing(uri: str) -> None:
    begun().done({})
    first = replayer(uri)
    spoiled = Path(".limbeck/spool/broken-20260101T000000000000-1.jsonl")
    spoiled.write_text('{"event": "begin", "stage": "teacher"}\n')  # neither group nor start
    assert first.poll() == 1
    first.close()
    assert [file.name for file in Path(".limbeck/spool").glob("*.rejected")] == [f"{spoiled.stem}.rejected"]
    assert server.answers(uri)


def test_params_that_contradict_an_earlier_replay_are_put_aside(uri: str) -> None:
    report = begun()
    first = replayer(uri)
    first.poll()
    first.close()
    report.spool.write_text(report.spool.read_text().replace('"seed": 3', '"seed": 4'))
    report.done({})
    assert replay_finished(uri=uri, experiment=EXPERIMENT) == 0
    assert report.spool.with_suffix(".rejected").exists()
    assert server.answers(uri), "the server is fine"


def test_pipeline_runs_are_told_apart(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun().done({})
    monkeypatch.setenv("LIMBECK_GROUP", "run-2")
    begun().done({})
    replay_finished(uri=uri, experiment=EXPERIMENT)
    assert len(runs(uri, pipeline="run-1")) == len(runs(uri, pipeline="run-2")) == 1


def test_a_report_can_be_put_beside_its_pipeline_run(uri: str, workspace: Path) -> None:
    begun().done({})
    replay_finished(uri=uri, experiment=EXPERIMENT)
    (workspace / "report.md").write_text("# fine")
    attach([workspace / "report.md"], uri=uri, experiment=EXPERIMENT, group="run-1")
    (parent,) = runs(uri, pipeline="run-1")
    assert [file.path for file in open_client(uri).list_artifacts(parent.info.run_id)] == ["report.md"]
