"""docs/windows.md: its rules and section are valid, its tables those of the code and of the results, its commands run."""

import json
import re
from pathlib import Path

import pytest
import yaml

from benchmarks import windows
from limbeck.params import Params
from limbeck.windows.rules import WindowRules
from stages.__main__ import check_components
from tests.conftest import ROOT, TINY
from tests.pipeline.clones import Clone, copy_of
from tests.pipeline.docs.pages import blocks_of, into, text_of


def test_the_section_on_the_page_is_one_that_the_pipeline_takes() -> None:
    (text,) = [block.text for block in blocks_of("windows") if block.kind == "yaml"]
    warnings: list[str] = []
    values = into(yaml.safe_load(TINY.read_text()), yaml.safe_load(text))
    check_components(Params.model_validate(values), warnings.append)
    assert not warnings


def test_the_rules_on_the_page_are_all_there_are_and_those_of_the_results() -> None:
    (shown,) = re.findall(r"^cat > windows.yaml <<'END'\n(.*?)^END$", text_of("windows"), re.MULTILINE | re.DOTALL)
    rules = WindowRules.model_validate(yaml.safe_load(shown))
    assert (rules.poison, rules.min_confidence) == (windows.POISON, windows.MIN_CONFIDENCE)


def test_the_table_names_every_check() -> None:
    code = "".join(path.read_text() for path in (ROOT / "limbeck/windows").glob("*.py"))
    checks = set(re.findall(r'check="([\w -]+)"', code)) | set(re.findall(r'Unfit\(\s*"([\w -]+)"', code))
    table = text_of("windows").partition("## What is checked")[2].partition("\n## ")[0]
    told = {name for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}
    assert told == checks


def test_what_the_page_says_of_mistakes_was_measured() -> None:
    result = json.loads((ROOT / "benchmarks/results/windows.json").read_text())
    assert windows.table(result) in text_of("windows")
    assert (result["poison"], result["window"]) == (windows.POISON.model_dump(), windows.WINDOW)


@pytest.mark.slow
def test_the_commands_of_the_page_run(repeated: Clone, tmp_path: Path) -> None:
    made = copy_of(repeated, tmp_path / "limbeck")
    for kind, _, text in blocks_of("windows"):
        if kind == "sh":  # the clone's own code, not what is installed
            said = made.run("bash", "-euxc", text.replace("limbeck windows", "python -m limbeck.cli windows")).stdout
            if "windows list" in text:
                assert "aside: poison" in said
        else:
            values = into(yaml.safe_load((made / "params.yaml").read_text()), yaml.safe_load(text))
            (made / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    meta = json.loads((made / "data/meta.json").read_text())
    assert [window["name"] for window in meta["windows"]] == ["morning", "noon"]
    assert (made / "windows/morning.dvc").exists()
