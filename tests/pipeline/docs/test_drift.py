"""docs/drift.md: its rules are those measured with, its tables those of code and results, its example runs."""

import inspect
import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from benchmarks import drift
from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.splits import read, read_meta
from limbeck.drift import DriftRules
from limbeck.drift.trigger import SOURCES
from limbeck.refresh import rules as rules_file
from tests.conftest import ROOT
from tests.pipeline.docs.pages import blocks_of, text_of

RESULT = json.loads((ROOT / "benchmarks/results/drift.json").read_text())
(RULES,) = [yaml.safe_load(text) for kind, _, text in blocks_of("drift") if kind == "yaml"]


def test_the_rules_of_the_page_are_those_that_were_measured() -> None:
    assert DriftRules.model_validate(RULES) == drift.RULES == DriftRules.model_validate(RESULT["rules"])


def test_a_refresh_goes_by_the_rules_that_were_measured() -> None:
    assert rules_file.load(ROOT / "refresh.yaml").drift == drift.RULES


def test_the_docstring_shows_the_same_rules() -> None:
    shown = re.search(r"^    level: .*?(?=\n\n)", inspect.getdoc(DriftRules) or "", re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert yaml.safe_load(textwrap.dedent(shown[0])) == RULES


def test_the_table_names_every_kind_with_its_source() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\w+) \|$", text_of("drift"), re.MULTILINE)
    assert dict(rows) == SOURCES


def test_what_the_page_says_was_measured() -> None:
    page = text_of("drift")
    for table in drift.table(RESULT).split("\n\n"):
        assert table in page
    still = RESULT["stationary"]
    shares = [drift.percent(still[name]["anything"]["share"]) for name in ("kept", "drawn", "cifar10")]
    assert f"in {shares[0]}, {shares[1]} and {shares[2]} of these windows" in page
    assert f"({100 * RESULT['accuracy']:.0f} % before)" in page


def test_false_alarms_are_proven_to_be_rarer_than_one_in_a_hundred() -> None:
    assert all(RESULT["ratios"][name] <= limit for name, limit in RESULT["limits"].items())
    assert all(each["fires"]["windows"] >= 1000 for each in RESULT["stationary"].values())


def test_what_is_missed_cost_less_than_a_point() -> None:
    assert "cost the student less than a\npoint" in text_of("drift")
    cells = [cell for each in RESULT["by shift"].values() for cell in each["all at once"].values()]
    assert all(RESULT["accuracy"] - cell["accuracy"] < 0.01 for cell in cells if cell["found"] < 1)


def test_the_example_runs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = read_meta(data)
    torch.manual_seed(0)
    for folder in ("models/teacher", "models/phone/distill"):
        spec = Spec(
            model=Component.model_validate({"use": "convnet", "width": 4, "depth": 1}), shape=meta.shape, dtype=meta.dtype,
            classes=meta.classes, mean=meta.mean, std=meta.std,
        )  # fmt: skip
        models.save(tmp_path / folder, spec, models.build(spec))
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "new").mkdir()
    x, _ = read(data, "test")
    np.save(tmp_path / "new" / "x.npy", 255 - x[:200])
    (tmp_path / "drift.yaml").write_text(yaml.safe_dump(RULES))
    monkeypatch.chdir(tmp_path)
    (example,) = [text for kind, _, text in blocks_of("drift") if kind == "python"]
    exec(example, {})
    assert "input statistics: mean 0 (ks" in capsys.readouterr().out
    assert (tmp_path / "drift.png").stat().st_size > 1000
