"""Muon moves kernels by orthogonal steps of their matrices, and vectors and the last matrix as plain momentum does."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.optimizers import OPTIMIZERS, muon, orthogonal, sgd

LAST = nn.Parameter(torch.ones(2, 2))
"""The classifier behind what is looked at."""


def stepped(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradients: list[Tensor]) -> Tensor:
    """Where so many gradients take a parameter."""
    for gradient in gradients:
        parameter.grad = gradient.clone(memory_format=torch.preserve_format)
        optimizer.step()
    return parameter.detach()


def drawn(*shape: int, num: int = 3) -> tuple[Tensor, list[Tensor]]:
    """Weights and some gradients."""
    generator = torch.Generator().manual_seed(0)
    first, *others = (torch.randn(shape, generator=generator) for _ in range(num + 1))
    return first, others


@given(rows=st.integers(1, 12), columns=st.integers(1, 40), scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_an_orthogonal_matrix_keeps_directions_and_has_singular_values_about_one(
    rows: int, columns: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator))
    rank = min(rows, columns)
    values = torch.linspace(1.0, 0.05, rank)
    made = orthogonal(scale * left[:, :rank] @ torch.diag(values) @ right[:, :rank].T)
    seen = left[:, :rank].T @ made @ right[:, :rank]
    assert ((torch.diagonal(seen) > 0.65) & (torch.diagonal(seen) < 1.16)).all()
    assert torch.allclose(seen, torch.diag(torch.diagonal(seen)), atol=1e-4)


def test_a_direction_of_three_thousandths_counts_as_much_as_the_largest() -> None:
    small, large = torch.diagonal(orthogonal(torch.diag(torch.tensor([0.003, 1.0]))))
    assert 0.65 < min(small, large) <= max(small, large) < 1.16


def test_weights_whose_gradients_have_ended_come_to_rest() -> None:
    first, gradients = drawn(4, 3, 3, 3)
    weights = nn.Parameter(first.clone())
    optimizer = muon(iter([weights, LAST]), 0.1, 0.0)
    rested = stepped(optimizer, weights, gradients + [torch.zeros_like(first)] * 600).clone()
    assert torch.isfinite(rested).all()
    assert torch.equal(stepped(optimizer, weights, [torch.zeros_like(first)] * 500), rested)


def test_without_a_gradient_nothing_moves() -> None:
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))
    weights = nn.Parameter(torch.ones(3, 5))
    muon(iter([weights, LAST]), 0.1, 0.5).step()
    assert torch.equal(weights, torch.ones(3, 5)), "frozen weights do not decay either"


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_a_matrix_moves_as_under_torchs_own_muon(shape: tuple[int, int]) -> None:
    """Which averages gradients where ours sums them, and rounds to bfloat16: the direction is the same."""
    first, gradients = drawn(*shape)
    ours, theirs = nn.Parameter(first.clone()), nn.Parameter(first.clone())
    own = muon(iter([ours, LAST]), 0.1, 0.2, momentum=0.9)
    peer = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.2, momentum=0.9)
    assert torch.allclose(stepped(own, ours, gradients), stepped(peer, theirs, gradients), atol=0.01)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("num_outputs", [4, 40])
def test_kernels_are_a_matrix_with_a_row_for_each_output_channel(num_outputs: int, layout: torch.memory_format) -> None:
    first, gradients = drawn(num_outputs, 3, 3, 3)
    kernels = nn.Parameter(first.clone().to(memory_format=layout))
    matrix = nn.Parameter(first.flatten(1).clone())
    moved = stepped(
        muon(iter([kernels, LAST]), 0.1, 0.2), kernels, [each.to(memory_format=layout) for each in gradients]
    )
    as_matrix = stepped(muon(iter([matrix, LAST]), 0.1, 0.2), matrix, [each.flatten(1) for each in gradients])
    assert torch.allclose(moved.flatten(1), as_matrix, atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_vectors_and_the_last_matrix_move_as_under_sgd_at_their_own_rate_without_decay(shape: tuple[int, ...]) -> None:
    first, gradients = drawn(*shape)
    ours, theirs = nn.Parameter(first.clone()), nn.Parameter(first.clone())
    moved = stepped(muon(iter([ours]), 0.1, 0.5, momentum=0.9, plain=3.0), ours, gradients)
    assert torch.allclose(moved, stepped(sgd(iter([theirs]), 0.3, 0.0, momentum=0.9), theirs, gradients))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_from_its_state_to_the_bit(name: str) -> None:
    first, gradients = drawn(4, 3, 3, 3, num=4)
    settings = {"momentum": 0.9} if name == "sgd" else {}

    def made(parameter: nn.Parameter) -> torch.optim.Optimizer:
        return OPTIMIZERS[name](iter([parameter, LAST]), 0.1, 0.1, **settings)

    whole = nn.Parameter(first.clone())
    expected = stepped(made(whole), whole, gradients)
    half = nn.Parameter(first.clone())
    before = made(half)
    stepped(before, half, gradients[:2])
    again = nn.Parameter(half.detach().clone())
    after = made(again)
    after.load_state_dict(before.state_dict())
    assert torch.equal(stepped(after, again, gradients[2:]), expected)
