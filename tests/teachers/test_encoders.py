"""A published text encoder as a teacher: filled from a folder of Hugging Face's, with the very answers of its own library."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from limbeck import export, models
from limbeck.atomic import sha256
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.errors import CheckpointError, ComponentError, DataError
from limbeck.models.text import inherit_table_
from limbeck.params import EncoderTeacher, SplitParams
from limbeck.prediction import predict
from limbeck.teachers.encoders import from_encoder
from limbeck.teachers.making import Making
from tests.conftest import Remembering

PIECES = [
    "[PAD]",
    "[unused0]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "play",
    "stop",
    "##s",
    "it",
    "now",
    "a",
    "b",
    "c",
    "music",
    "that",
]
CONFIG = {
    "model_type": "bert", "vocab_size": len(PIECES), "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 12, "max_position_embeddings": 16, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny encoder with random weights, as Hugging Face's library saves one, its pooler included."""
    place = tmp_path / "tiny-bert"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG))
    (place / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    torch.manual_seed(0)
    keywords: dict[str, Any] = {
        "vocabulary": len(PIECES), "width": 8, "depth": 2, "heads": 2, "hidden": 12, "places": 16, "segments": 2, "eps": 1e-12,
        "pooling": "mean", "start": 3, "end": 4,
    }  # fmt: skip
    spec = Spec(model=Component(use="bert", **keywords), shape=(6,), dtype="int32", classes=("a", "b"), mean=(), std=())
    state = {
        name: value for name, value in models.build(spec).body.state_dict().items() if not name.startswith("head.")
    }
    state |= {"pooler.dense.weight": torch.zeros(8, 8), "embeddings.position_ids": torch.arange(16)[None]}
    save_file(state, place / "model.safetensors")
    return place


def prepared(tmp_path: Path, folder: Path, **tokenizer: Any) -> Path:
    rows = [{"text": f"{verb} it {'now ' * (n % 4)}", "label": verb} for n in range(12) for verb in ("play", "stop")]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    described = {"use": "wordpiece", "length": 6, "vocabulary": str(folder), "size": None, "lower": True, **tokenizer}
    source = open_source(Component(use="texts", train=str(tmp_path / "all.jsonl"), tokenizer=described))
    data = tmp_path / "data"
    splits.write(data, source, SplitParams(test=0.2, validation=0.2, calibration=0.1), 0, max_overlap=1)
    return data


def section(folder: Path, settings: Any, **changed: Any) -> EncoderTeacher:
    adapt = {"use": "head", "augment": {"use": "none"}, "train": settings.model_dump()}
    values = {"use": "encoder", "folder": folder, "sha256": None, "prefix": "", "pooling": "mean", "adapt": adapt}
    return EncoderTeacher.model_validate(values | changed)


GOLDEN = [
    [-0.44219, -0.21503, 0.26457, 0.98971, 1.94585, -0.55162, -0.43197, -1.55932],
    [-0.42164, -0.5756, 0.061, 0.94273, 2.1201, -0.17772, -0.68037, -1.26851],
]
"""What transformers 5.23.0 makes of the same weights: the mean of `BertModel`'s last hidden states over a text's pieces, [CLS] and
[SEP] among them, normalized to length 8^0.5."""


def test_an_encoder_answers_as_in_its_own_library(folder: Path, tmp_path: Path, settings: Any) -> None:
    data = prepared(tmp_path, folder)
    brought = from_encoder(section(folder, settings), data, splits.read_meta(data), folder)
    codes = torch.tensor([[5, 7, 8, 0, 0, 0], [6, 8, 9, 9, 9, 9]])
    with torch.no_grad():
        assert torch.allclose(brought.network.body.pooled(codes), torch.tensor(GOLDEN), atol=2e-5)  # type: ignore[operator]


def test_the_order_and_the_company_of_texts_do_not_matter(folder: Path, tmp_path: Path, settings: Any) -> None:
    data = prepared(tmp_path, folder)
    network = from_encoder(section(folder, settings), data, splits.read_meta(data), folder).network
    x, _ = splits.read(data, "train")
    alone = np.concatenate([predict(network, x[index : index + 1]) for index in range(len(x))])
    assert np.allclose(predict(network, x), alone, atol=1e-5)


def test_a_teacher_takes_the_part_of_its_vocabulary_that_the_data_have(
    folder: Path, tmp_path: Path, settings: Any
) -> None:
    whole, part = (
        prepared(tmp_path / str(size), folder, size=size)
        for size in (None, 64)
        for _ in [(tmp_path / str(size)).mkdir()]
    )
    answers = []
    for data in (whole, part):
        torch.manual_seed(0)
        brought = from_encoder(section(folder, settings), data, splits.read_meta(data), folder)
        answers.append(brought.network.body.pooled(torch.from_numpy(np.array(splits.read(data, "test")[0]))))  # type: ignore[operator]
    assert brought.spec.model.keywords["vocabulary"] == len(PIECES) - 1  # without the place that nobody uses
    assert torch.allclose(*answers, atol=1e-6)


def test_a_head_is_trained_on_features_that_are_computed_once(
    folder: Path, tmp_path: Path, settings: Any, report: Remembering
) -> None:
    data = prepared(tmp_path, folder)
    making = Making(data, "accuracy", 0, report, lambda *_: Path())  # type: ignore[arg-type]
    spec, network, figures = making.make(section(folder, settings, sha256=sha256(folder / "model.safetensors")))
    assert spec.model.use == "bert"
    assert figures["adapt"] == "head"
    theirs = load_file(folder / "model.safetensors")
    assert all(value.equal(theirs[name]) for name, value in network.body.state_dict().items() if "layer.1" in name), (
        "frozen"
    )
    assert (report.scratch / "features" / "train.npy").exists()
    export.to_onnx(tmp_path / "teacher.onnx", network, spec, 18, {})
    x, _ = splits.read(data, "validation")
    export.check_parity(tmp_path / "teacher.onnx", network, x, max_difference=1e-4, min_equal=0.99)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "roberta"}, r"another kind of encoder \(model_type: roberta\); known: model_type: bert"),
        ({"hidden_act": "relu"}, r"hidden_act: relu"),
        ({"hidden_size": 16}, "does not fit the encoder of"),
    ],
)
def test_another_encoder_is_refused(
    folder: Path, tmp_path: Path, settings: Any, config: dict[str, Any], message: str
) -> None:
    data = prepared(tmp_path, folder)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    with pytest.raises(CheckpointError, match=message):
        from_encoder(section(folder, settings), data, splits.read_meta(data), folder)


def test_what_the_folder_lacks_is_told(folder: Path, tmp_path: Path, settings: Any) -> None:
    data, meta = prepared(tmp_path, folder), splits.read_meta(tmp_path / "data")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"model.safetensors is missing; expected weights as safetensors"):
        from_encoder(section(folder, settings), data, meta, folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        from_encoder(section(folder, settings), data, meta, folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(DataError, match=r"vocab.txt cannot be read"):
        prepared(tmp_path, folder)


def test_data_of_another_tokenizer_are_refused(folder: Path, tmp_path: Path, settings: Any) -> None:
    data = prepared(tmp_path, folder, vocabulary=None, size=64)
    with pytest.raises(CheckpointError, match=r"was not prepared with the vocabulary of .*tiny-bert"):
        from_encoder(section(folder, settings), data, splits.read_meta(data), folder)


def test_a_student_that_starts_from_its_teacher_keeps_what_is_near_near() -> None:
    torch.manual_seed(0)
    teacher, table = torch.nn.Embedding(40, 6), torch.nn.Embedding(40, 6)
    inherit_table_(table, teacher)
    theirs, ours = (torch.cdist(each.weight, each.weight) for each in (teacher, table))
    assert torch.allclose(ours / ours.max(), theirs / theirs.max(), atol=1e-2), "as wide: a rotation"
    again = torch.nn.Embedding(40, 6)
    inherit_table_(again, teacher)
    assert again.weight.equal(table.weight)
    with pytest.raises(ComponentError, match="asks for a teacher with a table of 41 codes, 6 wide or wider"):
        inherit_table_(torch.nn.Embedding(41, 6), teacher)
