"""docs/text.md: its sections are valid, its tables those of the code, its tokenizer reads."""

import json
import re
from pathlib import Path

import yaml

from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.data.sources.tokenizers import TOKENIZERS
from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import TINY
from tests.pipeline.docs.pages import blocks_of, into, text_of

(SECTION,) = [yaml.safe_load(text) for kind, is_example, text in blocks_of("text") if kind == "yaml" and not is_example]


def test_the_section_is_one_that_the_pipeline_takes() -> None:
    warnings: list[str] = []
    check_components(Params.model_validate(into(yaml.safe_load(TINY.read_text()), SECTION)), warnings.append)
    assert not warnings


def test_the_tables_name_every_tokenizer_and_the_students() -> None:
    named = re.findall(r"^\| `(\w+)` \|", text_of("text"), re.MULTILINE)
    assert named == [*TOKENIZERS, "ngram_embedding", "text_transformer"]


def test_the_section_prepares_texts(tmp_path: Path) -> None:
    rows = [{"text": f"{verb} number {n}", "label": verb} for n in range(15) for verb in ("play", "stop")]
    (tmp_path / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SECTION["data"]["source"] | {"train": str(tmp_path / "requests.jsonl")}
    shares = Params.model_validate(into(yaml.safe_load(TINY.read_text()), SECTION)).data.split
    meta = splits.write(tmp_path / "data", open_source(Component.model_validate(source)), shares, 0, max_overlap=1)
    assert (meta.shape, meta.dtype) == ((48,), "int32")
