import numpy as np
import pytest

from limbeck.edge import EdgeError
from limbeck.edge.history import Shop

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
