"""docs/text.md: its sections are valid, its tables those of the code, its tokenizer reads."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import text
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.data.sources.tokenizers import TOKENIZERS
from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import ROOT, TINY
from tests.pipeline.clones import clone, make_origin
from tests.pipeline.docs.pages import blocks_of, into, text_of

BLOCKS = blocks_of("text")
(SECTION,) = [yaml.safe_load(text) for kind, is_example, text in BLOCKS if kind == "yaml" and not is_example]
(COMMANDS,) = [text for kind, _, text in BLOCKS if kind == "sh"]


def values() -> dict[str, Any]:
    """tests/tiny.yaml with the page's section; what is trained keeps tiny's training, at another pace."""
    tiny = yaml.safe_load(TINY.read_text())
    made = into(tiny, SECTION)
    training = {**tiny["teacher"]["train"], "epochs": 8, "optimizer": {"use": "adamw"}, "lr": 0.01}
    for target in made["targets"].values():
        target["student"]["train"] = training
    return made | {"teacher": {**made["teacher"], "train": training}}


def test_the_section_is_one_that_the_pipeline_takes() -> None:
    warnings: list[str] = []
    check_components(Params.model_validate(values()), warnings.append)
    assert not warnings


def test_the_tables_name_every_tokenizer_and_the_students() -> None:
    named = re.findall(r"^\| `(\w+)` \|", text_of("text"), re.MULTILINE)
    assert named == [*TOKENIZERS, "ngram_embedding", "text_cnn", "text_transformer"]


def test_what_the_page_says_of_requests_was_measured() -> None:
    assert text.table(json.loads((ROOT / "benchmarks/results/text.json").read_text())) in text_of("text")


def test_the_section_prepares_texts(tmp_path: Path) -> None:
    rows = [{"text": f"{verb} number {n}", "label": verb} for n in range(15) for verb in ("play", "stop")]
    (tmp_path / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SECTION["data"]["source"] | {"train": str(tmp_path / "requests.jsonl")}
    shares = Params.model_validate(values()).data.split
    meta = splits.write(tmp_path / "data", open_source(Component.model_validate(source)), shares, 0, max_overlap=1)
    assert (meta.shape, meta.dtype) == ((48,), "int32")


@pytest.mark.slow
def test_the_example_of_the_page_trains_a_model_that_reads(tmp_path: Path) -> None:
    made = clone(make_origin(tmp_path / "origin"), tmp_path / "limbeck")
    (made / "params.yaml").write_text(yaml.safe_dump(values(), sort_keys=False))
    done = made.run("bash", "-euxc", COMMANDS)
    said = re.search(r"^The last line says `(.+)`\.$", text_of("text"), re.MULTILINE)
    assert said is not None
    assert done.stdout.splitlines()[-1] == said[1]
