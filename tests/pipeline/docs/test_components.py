"""docs/components.md: its files are complete, its values valid, and its commands run in a fresh workspace."""

import json
import re
from pathlib import Path

import pytest
import yaml

from limbeck.components import OWN
from tests.pipeline.clones import Clone, clone, make_origin
from tests.pipeline.docs.pages import blocks_of, into, text_of

BLOCKS = blocks_of("components")
NAMED = re.compile(r"# (custom/\S+\.py)\n")
FILES = {found[1]: text for _, _, text in BLOCKS if (found := NAMED.match(text))}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with the page's files and values in it."""
    made = clone(make_origin(tmp_path_factory.mktemp("origin")), tmp_path_factory.mktemp("fresh") / "limbeck")
    for path, text in FILES.items():
        (made / path).write_text(text)
    values = yaml.safe_load((made / "params.yaml").read_text())
    for kind, _, text in BLOCKS:
        if kind == "yaml":
            values = into(values, yaml.safe_load(text))
    (made / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return made


def test_the_page_has_a_file_of_each_of_four_kinds() -> None:
    kinds = {Path(path).parts[1] for path in FILES}
    assert kinds == {"losses", "augmentations", "models", "sources"}


def test_the_table_names_every_kind_that_has_a_folder_of_its_own() -> None:
    rows = set(re.findall(r"^\| \w.*\| `(custom/\w+)` \|", text_of("components"), re.MULTILINE))
    assert rows == {place.replace(".", "/") for place in OWN.values()}


def test_the_files_of_the_page_are_formatted_and_its_examples_hold(fresh: Clone) -> None:
    written = [fresh / path for path in FILES]
    fresh.run("ruff", "check", "--no-cache", *written)
    fresh.run("ruff", "format", "--no-cache", "--check", *written)
    examples = "\n".join(text for kind, _, text in BLOCKS if kind == "python" and not NAMED.match(text))
    assert "assert" in examples
    fresh.run("python", "-c", examples)


def test_the_values_of_the_page_train_a_student(fresh: Clone) -> None:
    fresh.stages("prepare", "teacher", "label", "distill@sensor")
    assert json.loads((fresh / "data/meta.json").read_text())["name"] == "stripes"
    figures = json.loads((fresh / "metrics/sensor/distill.json").read_text())
    assert figures["objective"] == "custom.losses.logit_match:logit_match"
    assert figures["validation"] > 0.5


@pytest.mark.slow
def test_the_commands_of_the_page_run(fresh: Clone) -> None:
    commands = [text for kind, _, text in BLOCKS if kind == "sh"]
    said = [fresh.run("bash", "-euc", text).stdout for text in commands]
    assert "sensor" in said[0]
    assert "distill@sensor" in said[1]
    assert "teacher" not in re.findall(r"^(\w+).*:$", said[1], re.MULTILINE)
