from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.edge import EdgeError, golden
from limbeck.edge.history import Shop
from limbeck.edge.session import open_session
from limbeck.export import run, to_onnx

SHOP = Shop(("bread", "jam", "milk", "tea"), 3)


def test_a_history_becomes_codes_the_newest_last() -> None:
    found = SHOP.history(["bread", "tea"])
    assert found.codes.dtype == np.int32
    assert (found.codes.tolist(), found.num_items, found.num_unknown) == ([[0, 1, 4]], 2, 0)
    assert SHOP.history(["bread", "tea", "milk", "jam"]).codes.tolist() == [[4, 3, 2]]


def test_an_item_that_the_catalogue_does_not_know_is_left_out_and_counted() -> None:
    found = SHOP.history(["caviar", "tea", "truffle", "bread"])
    assert (found.codes.tolist(), found.num_items, found.num_unknown) == ([[0, 4, 1]], 2, 2)


@pytest.mark.parametrize("items", [[], ["caviar"]])
def test_a_history_of_nothing_known_is_all_padding_and_says_so(items: list[str]) -> None:
    found = SHOP.history(items)
    assert (found.codes.tolist(), found.num_items, found.num_unknown) == ([[0, 0, 0]], 0, len(items))


def test_the_best_items_come_first_less_what_is_barred() -> None:
    logits = np.array([[0.1, 3.0, 2.0, -1.0]], np.float32)
    assert SHOP.best(logits, 2) == ["jam", "milk"]
    assert SHOP.best(logits, 2, without=["jam", "caviar"]) == ["milk", "bread"]
    assert SHOP.best(logits, 9) == ["jam", "milk", "bread", "tea"]


def test_what_is_no_history_or_no_answer_of_this_catalogue_is_refused() -> None:
    for items in ("tea", [1, 2]):
        with pytest.raises(EdgeError, match="a list of the names of items, the oldest first"):
            SHOP.history(items)  # type: ignore[arg-type]
    with pytest.raises(EdgeError, match=r"one answer over 4 items, found logits of shape \(1, 3\)"):
        SHOP.best(np.zeros((1, 3), np.float32), 2)
    with pytest.raises(EdgeError, match="names 3 items, only 2 different ones"):
        Shop(("tea", "jam", "tea"), 3)


def test_golden_vectors_hold_from_names_on(tmp_path: Path) -> None:
    items = tuple(f"item {number}" for number in range(30))
    spec = Spec(
        model=Component(use="sequential", width=8, depth=1, heads=2, hidden=8), shape=(5,), dtype="int32", classes=items,
        mean=(), std=(),
    )  # fmt: skip
    torch.manual_seed(0)
    to_onnx(tmp_path / "model.fp32.onnx", models.build(spec).eval(), spec, 18, {})
    shop = Shop(items, 5)
    asked = [["item 3", "item 9"], [f"item {number}" for number in range(9)], ["caviar"], []]
    codes = np.concatenate([shop.history(names).codes for names in asked])
    golden.write(tmp_path / "golden.npz", codes, {"model.fp32": run(tmp_path / "model.fp32.onnx", codes)})
    session = open_session(tmp_path / "model.fp32.onnx", 1)
    found = np.concatenate([session.run(None, {"input": shop.history(names).codes})[0] for names in asked])
    assert golden.check(tmp_path / "golden.npz", "model.fp32", found, max_difference=1e-5).equal_predictions == 1
    assert np.isfinite(found).all()
    assert np.array_equal(found[2], found[3]), "of nothing known, one answer for all"
    newer = np.array([[0, 0, 4, 10, 31]], np.int32)
    assert np.isfinite(session.run(None, {"input": newer})[0]).all(), "a code beyond the catalogue is no item"
