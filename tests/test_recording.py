import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from limbeck.params import ShortTrainParams
from limbeck.recording import Report


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIMBECK_GROUP", "run-1")
    return tmp_path


def status(stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f".limbeck/status/{stage}.json").read_text())
    return found


def events(report: Report) -> list[dict[str, Any]]:
    return [json.loads(line) for line in report.spool.read_text().splitlines()]


def begun(stage: str = "prune@phone", key: str = "abc") -> Report:
    report = Report(stage)
    report.begin({"recover": ShortTrainParams(epochs=2, lr=0.1), "seed": 3}, key)
    return report


def test_a_stage_that_begins_says_so_with_its_values_flattened() -> None:
    report = begun()
    begin = events(report)[0]
    assert begin["params"] == {"recover.epochs": 2, "recover.lr": 0.1, "seed": 3}
    assert (begin["stage"], begin["target"], begin["group"]) == ("prune@phone", "phone", "run-1")
    assert status("prune@phone")["outcome"] == "running"
    assert status("prune@phone")["pid"] == os.getpid()
    assert report.scratch.is_dir()


def test_the_data_set_is_named_once_it_is_prepared() -> None:
    Path("data").mkdir()
    Path("data/meta.json").write_text(json.dumps({"digest": "d" * 64, "name": "digits", "classes": []}))
    assert events(begun())[0]["dataset"] == {"digest": "d" * 64, "name": "digits"}
    Path("data/meta.json").write_text("damaged")
    assert "dataset" not in events(begun("label"))[0], "what is wrong with it is for the stage to say"


def test_scratch_survives_a_failure_and_not_a_success() -> None:
    report = begun()
    (report.scratch / "state").write_text("half")
    report.failed(ValueError("x"), "x", 2)
    again = begun()
    assert (again.scratch / "state").read_text() == "half"
    again.done({})
    assert not again.scratch.exists()


def test_scratch_under_another_key_goes_and_that_of_a_target_with_a_longer_name_stays() -> None:
    old, neighbour = begun(key="old"), begun("prune@phone-xl", "key")
    begun(key="new")
    assert not old.scratch.exists()
    assert neighbour.scratch.exists()


def test_an_end_carries_the_numbers_and_the_status_says_done() -> None:
    report = begun()
    report.done({"validation": {"value": 0.9, "of": "digits"}, "macs": 12})
    assert events(report)[-1]["metrics"] == {"validation.value": 0.9, "macs": 12.0}
    assert status("prune@phone")["outcome"] == "done"


def test_a_failure_is_told_once_with_stage_and_cause(capsys: pytest.CaptureFixture[str]) -> None:
    report = begun()
    assert report.failed(ValueError("x"), "the loss is nan", 2) == 2
    assert capsys.readouterr().err == "prune@phone: the loss is nan\n"
    assert status("prune@phone") | {"seconds": 0, "started": 0, "pid": 0} == {
        "stage": "prune@phone",
        "outcome": "failed",
        "error": "ValueError",
        "exit_code": 2,
        "message": "the loss is nan",
        "seconds": 0,
        "started": 0,
        "pid": 0,
        "progress": None,
    }
    assert events(report)[-1]["outcome"] == "failed"


def test_a_failure_before_the_beginning_leaves_a_status_and_no_run() -> None:
    report = Report("teacher")
    assert report.failed(ValueError("x"), "params.yaml cannot be used", 2) == 2
    assert status("teacher")["message"] == "params.yaml cannot be used"
    assert not report.spool.exists()


def test_a_status_that_cannot_be_written_does_not_hide_the_failure(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("teacher")
    Path(".limbeck").write_text("a file where the folder belongs")
    assert report.failed(ValueError("x"), "the disk is full", 2) == 2
    assert "teacher: the disk is full" in capsys.readouterr().err


def test_curves_are_spooled_by_arm_and_written_with_every_column(tmp_path: Path) -> None:
    report = begun()
    report.curve({"epoch": 0, "arm": "student", "train": 0.5})
    report.curve({"epoch": 1, "arm": "student", "train": 0.4, "validation": 0.9})
    assert [(event["step"], event["values"]) for event in events(report)[1:]] == [
        (0, {"student/train": 0.5}),
        (1, {"student/train": 0.4, "student/validation": 0.9}),
    ]
    report.write_curves(tmp_path / "plots/curves.csv")
    with (tmp_path / "plots/curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["epoch", "arm", "train", "validation"]
    assert rows[1]["validation"] == "0.9"


def test_without_an_epoch_the_curves_are_a_header(tmp_path: Path) -> None:
    begun().write_curves(tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text() == "epoch,validation\n"


def test_progress_reaches_the_status_and_no_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    report = begun()
    report._status_at = 0.0  # as if the last status were long ago
    report.progress(3, 10, "epoch 3")
    assert status("prune@phone")["progress"] == {"done": 3, "total": 10, "note": "epoch 3"}
    assert capsys.readouterr().err == ""


def test_whoever_waits_for_the_end_is_called_when_all_is_on_disk() -> None:
    report = begun()
    seen = []
    report.when_ended(lambda: seen.append((status("prune@phone")["outcome"], events(report)[-1]["event"])))
    report.done({})
    assert seen == [("done", "end")]


def test_without_a_flow_the_group_is_stable_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMBECK_GROUP")
    assert Report("teacher").group.split("-")[0] in ("alone", "dvc")
