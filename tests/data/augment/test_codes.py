"""Views of texts: codes left out, the others in their order, one at least."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.augment.codes import drop_codes
from limbeck.errors import ComponentError

TEXTS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=80), min_size=1, max_size=6)


@given(TEXTS, st.sampled_from([0.1, 0.5, 0.99]), st.integers(0, 9))
def test_what_stays_keeps_its_order_and_one_code_stays(texts: list[list[int]], probability: float, seed: int) -> None:
    samples = torch.tensor([text + [0] * (80 - len(text)) for text in texts], dtype=torch.int32)
    augment = drop_codes(probability=probability)
    found = augment.apply(samples, augment.draw(len(samples), torch.Generator().manual_seed(seed)))
    assert found.dtype == samples.dtype
    for text, row in zip(texts, found.tolist(), strict=True):
        left = [code for code in row if code]
        rest = iter(text)
        assert left
        assert row == left + [0] * (80 - len(left))
        assert all(code in rest for code in left), "a subsequence"


def test_as_many_go_as_asked() -> None:
    samples = torch.ones(4000, 30, dtype=torch.int32)
    augment = drop_codes(probability=0.2)
    found = augment.apply(samples, augment.draw(4000, torch.Generator().manual_seed(0)))
    assert float((found == 0).float().mean()) == pytest.approx(0.2, abs=0.01)


def test_other_samples_are_refused() -> None:
    with pytest.raises(ComponentError, match=r"drop_codes' takes codes \[L\], found samples of shape \(3, 3, 1\)"):
        drop_codes(probability=0.1).apply(torch.zeros(2, 3, 3, 1), torch.zeros(2, 64))
