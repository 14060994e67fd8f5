import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.objectives import Batch, Learned, Momentum, Mutual, features_for, kd, loss_of, supplies_of

MUTUAL = {"use": "mutual", "weight": 0.7, "temperature": 2.0, "keep": "better"}
MOMENTUM = {"use": "momentum", "decay": 0.9, "alpha": 0.5, "temperature": 2.0}


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def six() -> Batch:
    generator = torch.Generator().manual_seed(0)
    inputs, teacher, features = (torch.randn(6, width, generator=generator) for width in (4, 3, 7))
    return Batch(inputs, torch.tensor([0, 1, 2, 0, 1, 2]), teacher, features)


@pytest.fixture
def batch() -> Batch:
    return six()


def begun(component: dict[str, Any], model: nn.Module, batch: Batch, **nets: Any) -> Learned:
    made = loss_of(Component.model_validate(component), supplies_of(**nets))
    assert isinstance(made, Learned)
    made.begin(model, batch)
    return made.train()


def gradients(network: nn.Module) -> list[Tensor]:
    return [value.grad.clone() for value in network.parameters() if value.grad is not None]


def test_each_of_two_students_learns_its_labels_and_the_others_answer(batch: Batch) -> None:
    """Zhang et al. 2018, eq. 5: the gradient of each is that of its own loss with the other standing still."""
    student = net(0)
    loss = begun(MUTUAL, student, batch, student=lambda: net(1))
    assert isinstance(loss, Mutual)
    assert loss.peer is not None
    loss(student(batch.inputs), batch).backward()
    found = [gradients(student), gradients(loss.peer)]
    for own, other, gradient in ((net(0), net(1), found[0]), (net(1), net(0), found[1])):
        logits = own(batch.inputs)
        with torch.no_grad():
            theirs = functional.softmax(other(batch.inputs) / 2, 1)
        kl = (theirs * (theirs.log() - functional.log_softmax(logits / 2, 1))).sum(1).mean()
        (functional.cross_entropy(logits, batch.labels) + 0.7 * 4 * kl).backward()
        for one, two in zip(gradients(own), gradient, strict=True):
            assert torch.allclose(one, two, atol=1e-6)


def both_lose(seeds: tuple[int, int], **settings: float) -> float:
    student, batch = net(seeds[0]), six()
    loss = begun(MUTUAL | settings, student, batch, student=lambda: net(seeds[1]))
    return loss(student(batch.inputs), batch).item()


@given(weight=st.floats(0, 10), temperature=st.floats(0.5, 10))
def test_students_that_answer_alike_tell_each_other_nothing(weight: float, temperature: float) -> None:
    own = functional.cross_entropy(net(0)(six().inputs), six().labels).item()
    assert both_lose((0, 0), weight=weight, temperature=temperature) == pytest.approx(2 * own, rel=1e-5)


@given(seeds=st.tuples(st.integers(0, 9), st.integers(0, 9)), weight=st.floats(0, 10), temperature=st.floats(0.5, 10))
def test_neither_of_two_students_is_the_first(seeds: tuple[int, int], weight: float, temperature: float) -> None:
    settings = {"weight": weight, "temperature": temperature}
    assert both_lose(seeds, **settings) == pytest.approx(both_lose(seeds[::-1], **settings), rel=1e-5)


@pytest.mark.parametrize(
    ("keep", "names"), [("better", ["student", "peer"]), ("student", ["student"]), ("peer", ["peer"])]
)
def test_keep_names_whom_validation_chooses_among(batch: Batch, keep: str, names: list[str]) -> None:
    student = net(0)
    loss = begun(MUTUAL | {"keep": keep}, student, batch, student=lambda: net(1))
    assert list(loss.contenders(student)) == names


def test_both_students_learn_from_features_with_a_projector_each(batch: Batch) -> None:
    component = MUTUAL | {"own": {"use": "hint", "gamma": 1.0}}
    assert features_for(Component.model_validate(component)) == "hint"
    loss = begun(component, net(0), batch, student=lambda: net(1))
    assert [len(parameters) for parameters, _ in loss.learners()] == [6, 2, 2], "the peer and two projectors"
    seen = replace(batch, student_BD=torch.randn(6, 5))
    loss(net(0)(batch.inputs), seen).backward()
    assert all(value.grad is not None for parameters, _ in loss.learners() for value in parameters)


def test_where_no_peer_is_to_be_had_the_student_learns_by_its_own_loss(
    batch: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    student = net(0)
    loss = begun(MUTUAL | {"own": {"use": "kd", "alpha": 0.5, "temperature": 2.0}, "keep": "peer"}, student, batch)
    logits = student(batch.inputs)
    assert torch.equal(loss(logits, batch), kd(logits, batch, alpha=0.5, temperature=2.0))
    assert "mutual: one student alone is trained here" in caplog.text
    assert list(loss.contenders(student)) == ["student"]


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ({"use": "sum", "parts": [MUTUAL]}, r"loss 'sum': mutual trains two students.*turn it round, {use: mutual, own:"),
        (MUTUAL | {"own": MUTUAL}, r"loss 'mutual': its own loss is mutual, which trains two students itself"),
        (MUTUAL | {"own": {"use": "kdd"}}, r"no loss 'kdd'; did you mean 'kd'\?"),
        (MUTUAL | {"keep": "best"}, r"loss 'mutual': keep is 'best'; Input should be 'better', 'student' or 'peer'"),
        (MOMENTUM | {"of": "me"}, r"loss 'momentum': of is 'me'; Input should be 'student' or 'teacher'"),
        (MOMENTUM | {"of": "teacher", "rate": 2}, r"loss 'momentum': rate is 2; Input should be less than or equal to 1"),
    ],
)  # fmt: skip
def test_a_wrong_online_loss_is_refused_before_anything_trains(component: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        loss_of(Component.model_validate(component))


def test_the_average_of_the_student_teaches_it_and_follows_it(batch: Batch) -> None:
    student = net(0)
    loss = begun(MOMENTUM | {"of": "student"}, student, batch)
    assert isinstance(loss, Momentum)
    assert loss.average is not None
    assert not list(loss.learners()), "an average is not trained"
    average = loss.average.model
    logits = student(batch.inputs)
    taught = replace(batch, teacher_BK=average.eval()(batch.inputs))
    assert torch.equal(loss(logits, batch), kd(logits, taught, alpha=0.5, temperature=2.0))
    with torch.no_grad():
        student[0].weight += 1.0
    before = average[0].weight.clone()
    loss.after_step(student)
    assert torch.allclose(average[0].weight, before + 0.9), "the first step: decay 1/10"


@given(decay=st.floats(0, 0.999), weights=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8))
def test_an_average_stays_among_the_weights_it_follows(decay: float, weights: list[float]) -> None:
    student, first = net(0), 3.0
    with torch.no_grad():
        student[0].weight.fill_(first)
        loss = begun(MOMENTUM | {"of": "student", "decay": decay}, student, six())
        assert isinstance(loss, Momentum)
        assert loss.average is not None
        for weight in weights:
            student[0].weight.fill_(weight)
            loss.after_step(student)
        seen = [first, *weights]
        averages = loss.average.model[0].weight
        assert min(seen) - 1e-5 <= averages.min() <= averages.max() <= max(seen) + 1e-5


@given(temperature=st.floats(0.5, 10))
def test_an_average_that_counts_for_nothing_leaves_the_labels(temperature: float) -> None:
    student, batch = net(0), six()
    loss = begun(MOMENTUM | {"of": "student", "alpha": 0.0, "temperature": temperature}, student, batch)
    logits = student(batch.inputs)
    assert torch.equal(loss(logits, batch), functional.cross_entropy(logits, batch.labels))


def test_a_loaded_teacher_learns_from_the_labels_while_its_average_teaches(batch: Batch) -> None:
    student = net(0)
    loss = begun(MOMENTUM | {"of": "teacher", "rate": 0.05}, student, batch, teacher=lambda: net(7).eval())
    assert isinstance(loss, Momentum)
    assert loss.pupil is not None
    assert loss.average is not None
    assert [share() for _, share in loss.learners()] == [0.05]
    assert loss.pupil.training
    assert not loss.average.model.training
    average = net(7).eval()
    loss(student(batch.inputs), batch).backward()
    found = gradients(student), gradients(loss.pupil)
    one, two = net(0), net(7)
    kd(
        one(batch.inputs), replace(batch, teacher_BK=average(batch.inputs).detach()), alpha=0.5, temperature=2.0
    ).backward()
    functional.cross_entropy(two(batch.inputs), batch.labels).backward()
    for expected, gradient in zip((gradients(one), gradients(two)), found, strict=True):
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, gradient, strict=True))
    with torch.no_grad():
        loss.pupil[0].weight.fill_(1.0)
    loss.after_step(student)
    assert torch.allclose(loss.average.model[0].weight, 0.1 * average[0].weight + 0.9)


@pytest.mark.parametrize("of", ["student", "teacher"])
def test_where_nothing_can_go_on_learning_the_stored_soft_labels_teach(
    batch: Batch, of: str, caplog: pytest.LogCaptureFixture
) -> None:
    graph = fx.symbolic_trace(net(0))
    caplog.set_level(logging.WARNING)
    loss = begun(MOMENTUM | {"of": of}, graph, batch)
    logits = net(0)(batch.inputs)
    assert torch.equal(loss(logits, batch), kd(logits, batch, alpha=0.5, temperature=2.0))
    assert f"momentum: no {of} can go on learning here; the stored soft labels teach" in caplog.text
