"""What training minimizes. The loop calls `objective(model, batch)` and never asks which it is.

A loss is a function of a student's logits and its batch with keyword-only settings, or, where it owns networks, a class
like a module of torch (`learned.py`); each is one line of LOSSES. Legend: B batch, K classes.
"""

import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from limbeck.components import Component, check
from limbeck.objectives.adaptive import adaptive
from limbeck.objectives.attention import Attention
from limbeck.objectives.batch import Batch, Loss, Objective
from limbeck.objectives.combine import Sum
from limbeck.objectives.correcting import Corrected
from limbeck.objectives.features import Hint, relational, similarity
from limbeck.objectives.learned import Learned, Learner, Supplies, answered, learned_of
from limbeck.objectives.logits import cross_entropy, dist, dkd, kd, standardized
from limbeck.objectives.online import Momentum, Mutual
from limbeck.objectives.origins import ByOrigin
from limbeck.objectives.schedules import Schedule, ends, is_schedule, read
from limbeck.params import DistillParams, Unused

__all__ = [
    "LOSSES", "ON_FEATURES", "Attention", "Batch", "ByOrigin", "Corrected", "Hint", "Learned", "Learner", "Loss", "Momentum", "Mutual",
    "Objective", "Supplies", "adaptive", "cross_entropy", "dist", "dkd", "features_for", "kd", "learned_of",
    "loss_of", "objective_of", "on_head", "on_logits", "relational", "similarity", "standardized", "supplies_of",
]  # fmt: skip


class OnLogits:
    """A loss applied to the model's float32 logits, and to its features where the teacher's are there.

    `on_features` names the loss that learns from those, if one does: a graph that has none to tap is told of once.
    """

    def __init__(self, loss: Loss, on_features: str | None = None) -> None:
        self.loss, self._untold = loss, on_features

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar."""
        logits_BK, seen = answered(self.loss, model, batch)
        if self._untold and seen.student_BD is None:
            logging.getLogger(__name__).warning(
                "%s: this network is a graph whose features have no name; the labels teach in its place", self._untold
            )
            self._untold = None
        return self.loss(logits_BK, seen)


def on_logits(loss: Loss) -> Objective:
    """The objective that applies a loss to the model's logits and features."""
    return OnLogits(loss)


def on_head(objective: Objective, head: str) -> Objective:
    """The same with everything but the submodule `head` in evaluation mode: frozen norms keep their statistics."""

    def objective_of_head(model: nn.Module, batch: Batch) -> Tensor:
        model.eval()
        model.get_submodule(head).train()
        return objective(model, batch)

    return objective_of_head


def loss_of(component: Component, supplies: Supplies | None = None) -> Loss:
    """The loss that a component names, its settings filled in, those that are schedules moving with the training.

    Raises:
        ComponentError: it does not exist or does not take its keywords, at either end of a schedule.

    """
    supplies = supplies or supplies_of()
    place = f"loss {component.use!r}:"
    for end in ("start", "end"):
        settled = Component.model_validate({"use": component.use, **ends(component.keywords, end, place)})
        function = check(settled, LOSSES, "loss")
    moving = {key: read(value, f"{place} {key}") for key, value in component.keywords.items() if is_schedule(value)}
    fixed = {key: value for key, value in component.keywords.items() if key not in moving}
    if _owns_networks(function):
        return _moved(function(supplies, **fixed, **{key: value.start for key, value in moving.items()}), moving)
    settled_loss = partial(function, **fixed)
    if not moving:
        return settled_loss
    return lambda logits_BK, batch: settled_loss(logits_BK, batch, **_now(moving, batch))


def _owns_networks(function: Callable[..., Any]) -> bool:
    return inspect.isclass(function) and issubclass(function, Learned)


def _now(moving: dict[str, Schedule], batch: Batch) -> dict[str, float]:
    return {key: schedule.at(batch.progress) for key, schedule in moving.items()}


def _moved(loss: Learned, moving: dict[str, Schedule]) -> Learned:
    """The same, its attributes set to what their schedules say before every call."""

    def move(module: nn.Module, args: tuple[Tensor, Batch]) -> None:
        for key, value in _now(moving, args[1]).items():
            setattr(module, key, value)

    if moving:
        loss.register_forward_pre_hook(move)
    return loss


def supplies_of(
    teacher: Callable[[], nn.Module] | None = None, student: Callable[[], nn.Module] | None = None
) -> Supplies:
    """What losses that own networks are handed; those within them are handed the same."""
    supplies = Supplies(lambda component: loss_of(component, supplies), teacher, student)
    return supplies


def objective_of(
    distill: DistillParams | Unused,
    *,
    teacher: Callable[[], nn.Module] | None = None,
    student: Callable[[], nn.Module] | None = None,
) -> Objective:
    """The objective a target's `distill` section names; plain cross-entropy when it is `{use: none}`.

    Args:
        distill: the section.
        teacher: loads the teacher, for losses that keep it at work; None where it is not at hand.
        student: builds a student with fresh weights, for losses that train two; None where one alone is trained.

    """
    if isinstance(distill, Unused):
        return on_logits(cross_entropy)
    return OnLogits(loss_of(distill, supplies_of(teacher, student)), features_for(distill))


def features_for(component: Component) -> str | None:
    """The loss of a component, or within it, that learns from the teacher's features; None where none does."""
    if component.use in ON_FEATURES:
        return component.use
    return next(filter(None, map(features_for, component.parts)), None)


LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": cross_entropy,
    "kd": kd,
    "dkd": dkd,
    "dist": dist,
    "standardized": standardized,
    "adaptive": adaptive,
    "similarity": similarity,
    "hint": Hint,
    "relational": relational,
    "attention": Attention,
    "mutual": Mutual,
    "momentum": Momentum,
    "sum": Sum,
    "corrected": Corrected,
    "by_origin": ByOrigin,
}
ON_FEATURES = ("similarity", "hint", "relational")
"""Losses that need `label.features: true`."""
