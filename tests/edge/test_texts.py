"""A device that is given texts: bundle, tokenizer, golden texts and agent."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from limbeck.edge import EdgeError, bundle, golden, tokenizer, trial
from limbeck.edge import update as updating
from limbeck.edge.agent import Agent
from limbeck.edge.cli import main
from limbeck.edge.fetch import Folder
from limbeck.edge.home import Home
from limbeck.edge.measure import open_session
from limbeck.edge.tokenizer import Ngrams
from tests.edge.delivery import Publisher, provisioned

TEXTS = ["play some music", "stop it", "Ünïcode, 音楽?"]
GRAMS = Ngrams(length=6, buckets=20, words=1, characters=(3,))


def counting(path: Path) -> None:
    """`input` int32 [batch, 6] -> `logits` float32 [batch, 4]: the sum of rows of a table."""
    table = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axes"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "texts", [helper.make_tensor_value_info("input", TensorProto.INT32, ["batch", 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def publish(
    publisher: Publisher, serial: int, made: tokenizer.Tokenizer = GRAMS, proven: tokenizer.Tokenizer = GRAMS
) -> None:
    """A bundle of texts; its golden texts were read by `proven`, `made` is what ships."""
    stem = "model.int8"
    file = publisher.folder / "texts.onnx"
    counting(file)
    codes = tokenizer.encode_all(proven, TEXTS)
    described = {"name": "input", "shape": ["batch", 6], "dtype": "int32"}
    folder = publisher.make(
        serial, file=file, answers=np.zeros((4, 4), np.float32), input=described, classes=["a", "b", "c", "d"]
    )
    tokenizer.write(folder / tokenizer.NAME, made)
    logits = open_session(file, 1).run(None, {"input": codes})[0]
    golden.write(folder / "golden.npz", codes, {stem: logits}, TEXTS)
    publisher.seal(serial)
    publisher.serve(serial)


@pytest.fixture
def device(publisher: Publisher, tmp_path: Path) -> Home:
    home = provisioned(publisher, tmp_path)
    publish(publisher, 1)
    assert updating.update(home, Folder(publisher.folder), prove=trial.examine).kind == "switched"
    return home


def test_an_agent_answers_texts_as_it_answers_their_codes(device: Home) -> None:
    with Agent(device.path, updates=False) as agent:
        codes = tokenizer.encode_all(GRAMS, TEXTS)
        assert np.array_equal(agent.predict(TEXTS), agent.predict(codes))
        assert len(agent.classify(TEXTS)) == 3
        with pytest.raises(EdgeError, match="text 2 of 2: the text '' is empty"):
            agent.predict(["play", ""])
        with pytest.raises(EdgeError, match="takes several texts at once; give it a list"):
            agent.predict("play")  # type: ignore[arg-type]
        with pytest.raises(EdgeError, match=r"takes int32 \[batch, 6\], raw; found int32 \[1, 7\]"):
            agent.predict(np.ones((1, 7), np.int32))


def test_the_golden_answers_are_those_of_texts(device: Home, publisher: Publisher) -> None:
    assert golden.check_texts(device.bundle(device.read().current or "") / bundle.GOLDEN, GRAMS) == 3
    publish(publisher, 2, made=Ngrams(length=6, buckets=20, words=2, characters=(3,)))
    refused = updating.update(device, Folder(publisher.folder), prove=trial.examine)
    assert refused.kind != "switched"
    with Agent(device.path, updates=False) as agent:
        assert agent.serial == 1


def test_a_line_is_a_text_on_the_command_line(device: Home, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "requests.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    assert main(["predict", "--home", str(device.path), str(tmp_path / "requests.txt")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    (tmp_path / "requests.txt").write_bytes(b"caf\xe9\n")
    assert main(["predict", "--home", str(device.path), str(tmp_path / "requests.txt")]) == 2
    assert "the text is no UTF-8: byte 3 is 0xe9" in capsys.readouterr().err


def test_a_bundle_without_a_tokenizer_takes_no_texts(publisher: Publisher, tmp_path: Path) -> None:
    home = provisioned(publisher, tmp_path)
    publisher.publish(1)
    assert updating.update(home, Folder(publisher.folder), prove=trial.examine).kind == "switched"
    with Agent(home.path, updates=False) as agent, pytest.raises(EdgeError, match=r"its bundle has no tokenizer.json"):
        agent.predict(["play"])
