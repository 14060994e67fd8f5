"""Losses that own networks: a projector, a second student, a teacher that goes on learning.

They are modules, as torch's own losses are. What the training loop does for one: `begin` it, train its parameters beside
the student's, call `after_step`, keep its state with that of the training, and choose among its `contenders`. None of
it is exported.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from limbeck.components import Component
from limbeck.objectives.batch import Batch, Loss, Objective, answer

Learner: TypeAlias = tuple[list[nn.Parameter], Callable[[], float]]
"""Parameters that are trained, and what share of the learning rate they take now."""


@dataclass(frozen=True)
class Supplies:
    """What a loss with networks may ask for, handed to its constructor by position.

    loss: the loss that a component names. teacher: the loaded teacher, a new copy each time; student: a student with
    fresh weights. None where there is none: in the recovery after pruning and in quantized training.
    """

    loss: Callable[[Component], Loss]
    teacher: Callable[[], nn.Module] | None = None
    student: Callable[[], nn.Module] | None = None


class Learned(nn.Module):
    """A loss with networks of its own: `forward(logits_BK, batch)` is its value, a scalar.

    Its constructor takes `supplies` and keyword-only settings, each kept in the attribute of its name (where a schedule
    moves it). Losses within it are submodules.

    Attributes:
        rate: what share of the student's learning rate its own parameters take.
        stands_alone: it trains more than one student, each with a whole loss, and can be no part of another loss.

    """

    rate: float = 1.0
    stands_alone: bool = False

    @property
    def parts(self) -> Iterator["Learned"]:
        """Losses within this one that own networks too."""
        return (child for child in self.children() if isinstance(child, Learned))

    def begin(self, model: nn.Module, batch: Batch) -> None:
        """Make what depends on the student, which is on its device; `batch` is the first one it will see."""
        for part in self.parts:
            part.begin(model, batch)

    @property
    def watches(self) -> bool:
        """Whether it looks into the student's layers, which cannot be compiled then."""
        return any(part.watches for part in self.parts)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Within, the student answers a batch."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.watching(model))
            yield

    def after_step(self, model: nn.Module) -> None:
        """Follow the student, whose weights have just moved."""
        for part in self.parts:
            part.after_step(model)

    def contenders(self, model: nn.Module) -> dict[str, nn.Module]:
        """The networks of which the best on validation is kept, by name: all of the student's shape."""
        return {"student": model}

    def learners(self) -> Iterator["Learner"]:
        """What is trained beside the student, network by network."""
        below = {parameter for part in self.parts for parameter in part.parameters()}
        own = [value for value in self.parameters() if value.requires_grad and value not in below]
        if own:
            yield own, lambda: self.rate
        for part in self.parts:
            yield from part.learners()


def learned_of(objective: Objective) -> Learned:
    """The loss of an objective where it owns networks; an empty one where it owns none, or is a plain function."""
    loss = getattr(objective, "loss", None)
    return loss if isinstance(loss, Learned) else Learned()


def answered(loss: Loss, model: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
    """The model's logits [B, K] in float32 and the batch with its features, seen by a loss that watches."""
    if not isinstance(loss, Learned):
        return answer(model, batch)
    with loss.watching(model):
        return answer(model, batch)
