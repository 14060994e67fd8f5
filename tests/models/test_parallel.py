"""Parts of a batch side by side: the answers, gradients and statistics are those of the parts, in the same bits every time."""

import copy
import threading
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from limbeck.models import parallel as subject
from limbeck.models.parallel import DataParallel, Workers, num_parts
from limbeck.objectives import Batch, cross_entropy, on_head, on_logits
from limbeck.prediction import predict

X, Y = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3


class Counting(nn.Module):
    """Keeps books of the largest value it saw in training, which no mean of two gives."""

    largest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The same."""
        if self.training:
            self.largest.copy_(x.detach().max())
        return x


class Always(nn.Module):
    """Counts its batches, in evaluation, too."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The same."""
        self.count += 1
        return x


class Partly(nn.Module):
    """Owns a weight that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.unread = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        """The same."""
        return x


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LEAST_MACS", 0)


def network(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), *more
    return nn.Sequential(*stem, nn.Flatten(), nn.Linear(288, 3)).train()


def loss(model: nn.Module) -> Tensor:
    return functional.cross_entropy(model(X), Y)


def test_answers_gradients_and_statistics_are_those_of_the_parts() -> None:
    whole = network()
    first, second = copy.deepcopy(whole), copy.deepcopy(whole)
    expected = torch.cat([first(X[:32]), second(X[32:])])
    functional.cross_entropy(expected, Y).backward()

    together = DataParallel(whole, 2)
    answers = together(X)
    torch.testing.assert_close(answers, expected)
    functional.cross_entropy(answers, Y).backward()
    for weight, one, other in zip(whole.parameters(), first.parameters(), second.parameters(), strict=True):
        assert weight.grad is not None
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(weight.grad, one.grad + other.grad)
    for name, own in whole.named_buffers():
        parts = first.get_buffer(name), second.get_buffer(name)
        torch.testing.assert_close(own, (parts[0] + parts[1]) / 2, check_dtype=False)


def test_a_training_goes_on_from_its_own_weights_and_ends_in_the_same_bits_twice() -> None:
    ends = []
    for _ in range(2):
        whole = network()
        together, optimizer = DataParallel(whole, 2), torch.optim.SGD(whole.parameters(), lr=0.1)
        losses = []
        for _ in range(5):
            optimizer.zero_grad()
            value = loss(together)
            value.backward()
            optimizer.step()
            losses.append(value.item())
        assert losses == sorted(losses, reverse=True)
        ends.append(whole.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("num_parts", [2, 3, 5])
def test_what_is_the_same_in_all_parts_keeps_its_bits(num_parts: int) -> None:
    whole = network()
    whole.register_buffer("mean", torch.rand(100))
    whole[1].eval()  # as a frozen norm
    before = copy.deepcopy(whole.state_dict())
    loss(DataParallel(whole, num_parts)).backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def test_parts_answer_as_the_whole_does_once_norms_are_settled() -> None:
    whole = network().eval()
    torch.testing.assert_close(DataParallel(whole, 2)(X), whole(X))


def test_where_the_head_alone_is_trained_norms_keep_their_statistics() -> None:
    whole = network()
    whole.requires_grad_(False)[-1].requires_grad_(True)
    before = copy.deepcopy(whole.state_dict())
    together, objective = DataParallel(whole, 2), on_head(on_logits(cross_entropy), "4")
    objective(together, Batch(X, Y, None)).backward()  # type: ignore[no-untyped-call]
    assert [name for name, weight in whole.named_parameters() if weight.grad is not None] == ["4.weight", "4.bias"]
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def test_what_is_frozen_or_unread_has_no_gradient() -> None:
    whole = network(Partly())
    whole[0].requires_grad_(False)
    loss(DataParallel(whole, 2)).backward()
    assert [name for name, weight in whole.named_parameters() if weight.grad is None] == ["0.weight", "3.unread"]


def test_autocast_reaches_the_parts_and_their_answers_have_its_type() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert DataParallel(network(), 2)(X).dtype == torch.bfloat16


def test_a_batch_is_parted_where_each_part_is_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    macs = 32 * (27 * 8 * 36 + 288 * 3)
    monkeypatch.setattr(subject, "LEAST_MACS", macs)
    assert num_parts(network(), X[:32], 2) == 2
    assert num_parts(network(), X[:32], 1) == 1
    assert num_parts(network(), X[:31], 2) == 1  # samples
    monkeypatch.setattr(subject, "LEAST_MACS", macs + 1)
    assert num_parts(network(), X[:32], 2) == 1


@pytest.mark.parametrize("module", [nn.Dropout(0.5), Counting()], ids=["chance", "books"])
def test_a_network_that_would_learn_something_else_in_parts_is_left_whole(module: nn.Module) -> None:
    whole = network(module)
    before = torch.get_rng_state(), copy.deepcopy(whole.state_dict())
    assert num_parts(whole, X[:32], 2) == 1
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in whole.state_dict().items())


def test_what_is_still_in_evaluation_is_parted_there() -> None:
    assert num_parts(network(nn.Dropout(0.5)).eval(), X[:32], 2) == 2


def test_a_network_in_evaluation_is_not_copied_for_it_and_keeps_its_books() -> None:
    whole = network(Always()).eval()
    loss(whole).backward()
    whole.seen = whole(X)  # no leaf: cannot be copied
    assert num_parts(whole, X[:32], 2) == 1
    assert whole.get_submodule("3").get_buffer("count") == 2, "those two, not the trial"


@pytest.mark.parametrize("training", [True, False])
def test_predictions_side_by_side_are_those_of_one_thread_to_the_bit(training: bool) -> None:
    whole = network(nn.Dropout(0.5))
    loss(whole)  # moves the norms' statistics
    whole.train(training)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(predict(whole, np.concatenate([X.numpy()] * 5)[:300], batch_size=33))
    torch.set_num_threads(2)
    assert found[0].shape == (300, 3)
    assert all(np.array_equal(each, found[0]) for each in found)
    assert whole.training == training


@pytest.mark.parametrize(("num_samples", "num_threads"), [(33, 1), (66, 2), (100, 3), (1000, 3)])
def test_as_many_threads_predict_as_there_are_batches(num_samples: int, num_threads: int) -> None:
    seen: set[int] = set()
    whole = network().eval()
    x = np.zeros((num_samples, 3, 8, 8), np.float32)
    torch.set_num_threads(3)
    with whole.register_forward_hook(lambda *_: seen.add(threading.get_ident()) or time.sleep(0.05)):
        predict(whole, x, batch_size=33)
    torch.set_num_threads(2)
    assert len(seen - {threading.get_ident()}) == (num_threads if num_threads > 1 else 0)


def test_workers_have_what_the_caller_has_and_threads_of_their_own() -> None:
    torch.set_num_threads(2)
    with torch.inference_mode():
        found = Workers(2).map(lambda _: (torch.is_inference_mode_enabled(), torch.get_num_threads()), range(4))
    assert found == [(True, 1)] * 4
    assert torch.get_num_threads() == 2


def test_what_fails_in_a_worker_fails_for_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        Workers(2).map(lambda value: 1 / value, [1, 0])


def test_after_a_failure_nothing_new_is_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.05)
        if number == 0:
            raise ZeroDivisionError

    workers = Workers(1)
    with pytest.raises(ZeroDivisionError):
        workers.map(work, range(100))
    workers.pool.shutdown()
    assert len(begun) < 5
