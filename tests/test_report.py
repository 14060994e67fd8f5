import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from limbeck import report
from limbeck.edge import manifest as manifest_file
from limbeck.errors import LimbeckError
from limbeck.params import load
from tests.conftest import TINY
from tests.tracking.conftest import promote, register, write_export

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

NAME, TARGET = load(TINY).name, next(iter(load(TINY).targets))
VARIANTS = ("teacher", "student", "model.fp32", "model.int8")


def estimate(value: float, spread: float = 0.0) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def measured(
    workspace: Path, *, slowdown: float = 0.5, gain: float = 0.02, drop: float = 0.006, faster: float = 9.04
) -> dict[str, Any]:
    """What the stages leave behind for one target, its int8 `slowdown` times as slow as its fp32; the manifest."""
    manifest = write_export(workspace / "export" / TARGET, 0.0, 10, 8, 8)
    manifest |= {
        "name": NAME,
        "target": TARGET,
        "num_params": dict.fromkeys(VARIANTS, 1234),
        "macs": dict.fromkeys(VARIANTS, 41554),
    }
    (workspace / "export" / TARGET / "manifest.json").write_text(json.dumps(manifest))
    quality = {
        variant: {split: {**estimate(0.95, 0.01), "drop": estimate(drop, 0.004)} for split in ("validation", "test")}
        for variant in VARIANTS
    }
    latency = {
        variant: {
            **{key: estimate(0.1 * (4 - place), 0.01) for key in ("p50_ms", "p90_ms", "p95_ms", "p99_ms")},
            "bytes": 6100 // (1 + place),
            "peak_memory_mb": 3.0,
            "cold_start_ms": 1.0,
        }
        for place, variant in enumerate(VARIANTS)
    }
    ratios = {f"teacher/{variant}": estimate(faster, 0.1) for variant in VARIANTS[1:]}
    metrics = workspace / "metrics" / TARGET
    metrics.mkdir(parents=True)
    (metrics / "quality.json").write_text(json.dumps({"metric": "accuracy", "test_count": 719, "variants": quality}))
    (metrics / "latency.json").write_text(
        json.dumps(
            {
                "variants": latency,
                "ratios": ratios | {"model.int8/model.fp32": estimate(slowdown, 0.01)},
                "machine": {"cpu": "a processor"},
                "batch_size": 1,
            }
        )
    )
    difference = {"gain": {**estimate(gain, 0.01), "beyond_noise": abs(gain) > 0.01}}
    (metrics / "distill.json").write_text(json.dumps(difference))
    (workspace / "plots" / TARGET).mkdir(parents=True)
    (workspace / "plots" / TARGET / "confusion.csv").write_text("actual,fp32,int8\n0,0,1\n1,1,1\n")
    (workspace / "plots" / "teacher.csv").write_text("epoch,validation\n0,0.5\n1,0.9\n")
    return manifest


@pytest.fixture
def project(workspace: Path, data: Path) -> Path:
    shutil.copy(TINY, workspace / "params.yaml")
    (workspace / "data").symlink_to(data)
    return workspace


def shown(rendered: report.Rendered) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(rendered.console)
    return console.export_text()


def test_one_plain_sentence_tells_what_was_gained_and_lost(project: Path) -> None:
    measured(project)
    (target,) = report.gather(project)
    assert report.sentence(target) == (
        f"`{TARGET}`: 4x smaller and 9.0x faster than the teacher, 0.6 points lost, "
        "+2.0 from distillation [1.0, 3.0] (one seed). Not registered yet."
    )


@pytest.mark.parametrize(
    ("rungs", "float_layers", "told"),
    [
        (["static_mse"], 0, "int8 cost 0.3 points, no layers stayed float, QAT was not needed."),
        (["static_mse", "mixed_1"], 1, "int8 cost 0.3 points, one layer stayed float, QAT was not needed."),
        (["static_mse", "mixed_1", "mixed_2", "qat"], 2, "two layers stayed float, QAT was needed."),
        (["qat", "mixed_7"], 7, "7 layers stayed float, QAT did not help."),
    ],
)
def test_a_second_sentence_tells_which_rung_of_int8_it_took(
    project: Path, rungs: list[str], float_layers: int, told: str
) -> None:
    measured(project)
    metrics = project / "metrics" / TARGET
    quality = json.loads((metrics / "quality.json").read_text())
    quality["variants"]["model.int8"]["test"]["value"] -= 0.003
    (metrics / "quality.json").write_text(json.dumps(quality))
    figures = {"kept": True, "float_layers": float_layers}
    (metrics / "quantize.json").write_text(json.dumps({"rung": rungs[-1], "rungs": dict.fromkeys(rungs, figures)}))
    (target,) = report.gather(project)
    assert report.sentence(target).endswith(f" {told}")


def test_a_ladder_without_an_end_is_told_as_such(project: Path) -> None:
    measured(project)
    figures = {"rung": "qat", "rungs": {"qat": {"kept": False, "float_layers": 0}}}
    (project / "metrics" / TARGET / "quantize.json").write_text(json.dumps(figures))
    (target,) = report.gather(project)
    assert report.sentence(target).endswith("QAT was needed; on validation no rung keeps the contract.")


def test_what_another_processor_answered_is_a_note(project: Path) -> None:
    measured(project)
    quality = project / "metrics" / TARGET / "quality.json"
    found = {"model.int8": {"equal_predictions": 0.998, "max_difference": 0.1}}
    witness = {"use": "emulated", "cpu": "Haswell", "samples": 1000, "variants": found}
    quality.write_text(json.dumps({**json.loads(quality.read_text()), "witness": witness}))
    (target,) = report.gather(project)
    told = f"{NAME}-{TARGET}: model.int8 gives 99.80% of 1,000 predictions alike on Haswell (emulated)."
    assert report.witness_notes(target) == [told]


def test_a_student_that_is_slower_is_told_as_slower(project: Path) -> None:
    measured(project, faster=0.5)
    (target,) = report.gather(project)
    assert "4x smaller and 2.0x slower than the teacher" in report.sentence(target)


def test_a_gain_inside_the_noise_is_told_as_none(project: Path) -> None:
    measured(project, gain=0.005)
    (target,) = report.gather(project)
    assert "distillation gained nothing beyond the noise (+0.5 [-0.5, 1.5], one seed)" in report.sentence(target)


def test_a_distillation_that_did_harm_is_told_as_such(project: Path) -> None:
    measured(project, gain=-0.02)
    (target,) = report.gather(project)
    assert "-2.0 by distillation, which did harm [-3.0, -1.0] (one seed)" in report.sentence(target)


def test_the_table_names_the_broken_clause_of_a_variant_that_lost(project: Path) -> None:
    allowed = load(TINY).targets[TARGET].contract.max_slowdown
    measured(project, slowdown=allowed + 1)
    verdicts = {row.cells[1]: row.cells[-1] for row in report.rows(report.gather(project))}
    assert verdicts["teacher"] == verdicts["student"] == "-"
    assert verdicts["pruned"].startswith("kept")
    assert verdicts["quantized"] == f"broken: not slower {allowed + 1:.3g} > {allowed:.3g}"


def test_the_report_is_the_same_in_markdown_html_and_on_the_terminal(project: Path, uri: str) -> None:
    manifest = measured(project)
    exported = project / "export" / TARGET
    model = f"{NAME}-{TARGET}"
    promote(uri, register(uri, exported, manifest, model=model), exported, manifest, score=lambda file: np.ones(4))
    decision = {"variant": "model.int8", "identity": manifest_file.identity(exported)}
    (project / "registry").mkdir()
    (project / "registry" / f"{TARGET}.json").write_text(json.dumps(decision))
    rendered = report.render(project, project / "reports")
    html = rendered.html_path.read_text()
    terminal = shown(rendered)
    for text in (rendered.markdown, html, terminal):
        assert "4x smaller and 9.0x faster than the teacher" in text
        assert f"{model} version 1: champion, candidate" in text
        assert re.search(r"champion \d +champion \d +champion \d\s+teacher  \d", text)
        assert "a processor" in text
        assert f"dvc exp run -S targets.{TARGET}.prune.ratio=0.5" in text
    assert (project / "reports/report.md").read_text() == rendered.markdown
    assert not re.search(r"(src|href)=.(?!data:)", html), "self-contained"
    headings = ["Size and latency against quality", "Training", f"Confusion of `{TARGET}`, quantized, on test"]
    assert re.findall(r"<h2>(.*?)</h2>", html)[:3] == headings
    assert len(list((project / "reports").glob("*.png"))) == 3


def test_a_decision_about_earlier_files_is_not_shown_as_todays(project: Path) -> None:
    measured(project)
    (project / "registry").mkdir()
    (project / f"registry/{TARGET}.json").write_text(json.dumps({"variant": "model.int8", "identity": "another"}))
    (target,) = report.gather(project)
    assert target.ships is None
    assert "Not registered yet." in report.sentence(target)


def test_a_broken_contract_stands_in_the_report_with_its_clause_and_what_to_try(project: Path) -> None:
    measured(project, drop=0.9)
    (target,) = report.gather(project)
    assert report.sentence(target).endswith("It breaks its contract: nothing is registered.")
    told = report.render(project, project / "reports").markdown
    assert re.search(
        r"model.int8: max_drop on validation: allowed 0\.\d+, measured 0\.9 .*; distil or recover longer", told
    )


def test_a_registry_that_is_away_is_a_line_of_the_report(
    project: Path, closed_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed_server)
    assert "does not answer. Repeat the command when it does" in report.render(project, project / "reports").markdown


def test_without_anything_measured_it_says_what_to_run(project: Path) -> None:
    with pytest.raises(LimbeckError, match="holds no benchmarked target yet; run `dvc repro` or `make run` first"):
        report.render(project, project / "reports")
