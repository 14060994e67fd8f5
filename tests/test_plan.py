"""What can be said of a contract before any training."""

import io
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from limbeck import cli, models
from limbeck import plan as planning
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.splits import read_meta
from limbeck.distillation import begun
from limbeck.errors import DataError
from limbeck.export import run
from limbeck.params import Params
from limbeck.plan import Plan, cannot_be
from limbeck.selection import FP32, hold
from tests.conftest import TINY


def by_size(
    files: dict[str, Path], threads: int, batch_size: int, measure: Any, progress: Callable[..., None]
) -> dict[str, Any]:
    """A device on which a file takes a microsecond for each of its bytes, give or take a tenth."""

    def row(path: Path) -> dict[str, Any]:
        size = path.stat().st_size
        time = {"value": size / 1000, "low": 0.9 * size / 1000, "high": 1.1 * size / 1000}
        return {"p50_ms": time, "p95_ms": time, "peak_memory_mb": 1.0, "bytes": size}

    return {"variants": {name: row(path) for name, path in files.items()}, "ratios": {}}


def planned(params: Params, data: Path, **changes: Any) -> Plan:
    """A plan of the sensor with sections replaced, in fp32 alone."""
    raw = params.model_dump()
    sensor = raw["targets"]["sensor"]
    sensor |= {"quantize": {"use": "none"}, "device": {"use": f"{__name__}:by_size"}}
    for section, values in changes.items():
        sensor[section] = {**sensor[section], **values}
    (made,) = planning.plan(Params.model_validate(raw), data, ["sensor"], lambda _: None)
    return made


def test_a_plan_looks_at_what_distill_begins_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Params, data: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Spec] = []

    def write(path: Path, network: Any, spec: Spec, *_: Any) -> None:
        seen.append(spec)
        path.write_bytes(b"a file")

    monkeypatch.setattr(planning, "to_onnx", write)
    planned(tiny, data)
    assert seen[0] == begun(tiny.targets["sensor"].student, data, tiny.seed)[0]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files that weigh four bytes for a parameter, in place of exports, which take seconds."""
    monkeypatch.chdir(tmp_path)

    def write(path: Path, network: Any, *_: Any) -> None:
        path.write_bytes(bytes(4 * sum(parameter.numel() for parameter in network.parameters())))

    monkeypatch.setattr(planning, "to_onnx", write)


def test_the_files_are_real_and_the_cut_one_is_smaller(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Params, data: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    made = planned(tiny, data)
    before, after = made.files["student"], made.files[FP32]
    assert (before.label, after.label) == ("before pruning, fp32", "after pruning, fp32")
    assert after.num_params < before.num_params
    assert after.macs < before.macs
    assert after.path.stat().st_size < before.path.stat().st_size
    assert run(after.path, np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 10)
    assert [clause.clause for clause in made.clauses[FP32]] == ["max_size_kb", "max_p95_ms", "max_peak_memory_mb"]
    assert made.refusal == ""


@pytest.mark.usefixtures("counted")
def test_without_pruning_there_is_one_network(tiny: Params, data: Path) -> None:
    made = planned(tiny, data, prune={"use": "none"})
    assert [file.label for file in made.files.values()] == ["student, fp32"]


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("contract", "said"),
    [
        ({"max_size_kb": 1}, r"max_size_kb: allowed 1 kB, measured \d.\d+ kB; cut more"),
        ({"max_p95_ms": 0.1}, r"max_p95_ms: allowed 0.1 ms, measured .* ms; cut"),
        ({"max_peak_memory_mb": 0.5}, r"max_peak_memory_mb: allowed 0.5 MB, measured 1 MB; choose a narrower"),
    ],
)
def test_a_hopeless_clause_is_refused_by_name(tiny: Params, data: Path, contract: dict[str, float], said: str) -> None:
    made = planned(tiny, data, contract=contract)
    first, line = made.refusal.splitlines()
    assert first == "sensor: no variant can keep the contract, whatever training gives."
    assert line.startswith("  after pruning, fp32: ")
    assert re.search(said, line)


@pytest.mark.usefixtures("counted")
def test_a_cut_that_cannot_be_reached_is_refused_in_its_own_words(tiny: Params, data: Path) -> None:
    made = planned(tiny, data, prune={"ratio": None, "max_macs": 10})
    assert made.refusal.startswith("sensor: prune.max_macs asks for 10 MACs; the narrowest")
    assert list(made.files) == ["student"], "what could be made is shown"


@pytest.mark.usefixtures("counted")
def test_budgets_say_what_share_has_to_go_and_global_ranks_are_estimates(tiny: Params, data: Path) -> None:
    made = planned(tiny, data, prune={"ratio": None, "max_macs": 20_000, "scope": "global"})
    assert made.files[FP32].macs <= 20_000
    estimate, share = made.notes
    assert "widths after pruning are an estimate" in estimate
    assert "of the channels have to go" in share


@pytest.mark.usefixtures("counted")
def test_blocks_go_by_lot_and_refuse_nothing(tiny: Params, data: Path) -> None:
    made = planned(
        tiny, data, student={"model": {"use": "resnet", "width": 8, "depth": 14}}, contract={"max_size_kb": 1.0},
        prune={"use": "loss", "num_batches": 1, "scope": "block", "ratio": 0.5, "round_to": 1},
    )  # fmt: skip
    assert made.files[FP32].macs < made.files["student"].macs
    assert "here, by lot: bytes and times are an estimate" in made.notes[0]
    assert any(cannot_be(clause) for clause in made.clauses[FP32])
    assert made.refusal == "", "other blocks might keep it"


@pytest.mark.usefixtures("counted")
def test_an_importance_that_needs_training_is_stood_in_for(tiny: Params, data: Path) -> None:
    taylor = planned(tiny, data, prune={"use": "taylor", "num_batches": 2})
    assert taylor.files[FP32].macs == planned(tiny, data).files[FP32].macs


@pytest.mark.usefixtures("counted")
def test_a_device_elsewhere_leaves_bytes_to_compare_and_says_where_the_files_are(tiny: Params, data: Path) -> None:
    made = planned(tiny, data, device={"use": "result", "file": "none.json"})
    assert made.latency is None
    assert [clause.clause for clause in made.clauses[FP32]] == ["max_size_kb"]
    assert "limbeck-edge bench" in made.notes[0]
    assert "The files are in .limbeck/plan/sensor" in made.notes[0]
    assert made.files[FP32].path.exists()


def test_a_clause_is_lost_only_when_its_better_bound_breaks_it() -> None:
    around = {"value": 2.0, "low": 1.5, "high": 2.5}
    assert not cannot_be(hold("max_p95_ms", 1.6, around))
    assert cannot_be(hold("max_p95_ms", 1.4, around))


@pytest.mark.usefixtures("counted")
def test_the_table_shows_every_file_and_what_is_to_hope_for(tiny: Params, data: Path) -> None:
    fits, hopeless = planned(tiny, data), planned(tiny, data, contract={"max_size_kb": 1})
    text = io.StringIO()
    Console(file=text, width=140).print(planning.render([fits, hopeless]))
    shown = text.getvalue()
    assert "untrained network" in shown
    assert f"{fits.files['student'].num_params:,}" in shown
    assert "sensor after pruning, fp32: keeps max_size_kb, max_p95_ms, max_peak_memory_mb" in shown
    assert "sensor after pruning, fp32: cannot keep max_size_kb: allowed 1 kB" in shown


@pytest.mark.usefixtures("counted")
def test_the_command_shows_the_table_and_ends_with_code_2_where_a_contract_is_hopeless(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load(TINY.read_text())
    sensor = values["targets"]["sensor"]
    sensor |= {"quantize": {"use": "none"}, "prune": {"use": "none"}, "device": {"use": "result", "file": "none.json"}}
    sensor["contract"]["max_size_kb"] = 1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "data").symlink_to(data)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.argv", ["limbeck", "plan", "--workspace", str(tmp_path), "--target", "sensor"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    said = capsys.readouterr()
    assert "sensor  student, fp32" in said.out
    assert "limbeck: sensor: no variant can keep the contract, whatever training gives." in said.err
    assert "student, fp32: max_size_kb: allowed 1 kB, measured" in said.err


@pytest.mark.usefixtures("counted")
def test_a_student_that_is_the_teacher_needs_one(tmp_path: Path, tiny: Params, data: Path) -> None:
    model = {"model": {"use": "teacher"}}
    there = tmp_path / "project/data"
    shutil.copytree(data, there)
    with pytest.raises(
        DataError, match=r"sensor: its student is the teacher, and .*models/teacher is missing; run `dvc"
    ):
        planned(tiny, there, student=model)
    meta = read_meta(data)
    spec = Spec(
        model=Component.model_validate({"use": "resnet", "width": 8, "depth": 8}), shape=meta.shape, dtype=meta.dtype,
        classes=meta.classes, mean=(40.0,), std=(50.0,),
    )  # fmt: skip
    teacher = models.build(spec)
    models.save(there.parent / "models/teacher", spec, teacher)
    made = planned(tiny, there, student=model)
    assert made.files["student"].num_params == models.num_params(teacher) > made.files[FP32].num_params


@pytest.mark.usefixtures("counted")
def test_tables_of_four_bits_are_refused_where_a_student_has_none(tiny: Params, data: Path) -> None:
    quantize = tiny.model_dump()["targets"]["sensor"]["quantize"]
    made = planned(tiny, data, quantize={**quantize, "table_bits": 4})
    assert re.match("sensor: quantize.table_bits is 4, and this student has no table of embeddings", made.refusal)
