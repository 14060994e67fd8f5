"""Teachers that learn while they teach: a second student, or a network whose average follows a learning one.

Both need more than one network beside the data. Where that is not to be had, in the recovery after pruning and in
quantized training, they leave it to what is, and the log says so. Legend: B batch, K classes.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, fx, nn

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.models.averaged import Averaged
from limbeck.objectives.batch import Batch
from limbeck.objectives.learned import Learned, Supplies, answered
from limbeck.objectives.logits import cross_entropy, kd, soft_divergence
from limbeck.params import Beta, Quality

log = logging.getLogger(__name__)


class Mutual(Learned):
    """Deep mutual learning: two students of one architecture, and from two seeds, that teach each other.

    Each minimizes its `own` loss (null: cross-entropy) plus weight T^2 KL(p_other^T || p_self^T), in which the other stands
    still (Zhang et al. 2018, Deep Mutual Learning, eq. 5 and 6, with T = 1; here both move at once, from the same batch).
    `keep` says which is kept: the better on validation, or the named one.

    Raises:
        ComponentError: `own` trains two students itself.

    """

    stands_alone = True

    def __init__(
        self,
        supplies: Supplies,
        *,
        own: Component | None = None,
        weight: NonNegativeFloat,
        temperature: PositiveFloat,
        keep: Literal["better", "student", "peer"],
    ) -> None:
        super().__init__()
        component = Component(use="cross_entropy") if own is None else Component.model_validate(own)
        self.own, self.peers_own = supplies.loss(component), supplies.loss(component)
        if isinstance(self.own, Learned) and self.own.stands_alone:
            raise ComponentError(f"loss 'mutual': its own loss is {component.use}, which trains two students itself.")
        self.weight, self.temperature, self.keep = weight, temperature, keep
        self.fresh = supplies.student
        self.peer: nn.Module | None = None

    def begin(self, model: nn.Module, batch: Batch) -> None:
        """Build the peer; with none to build, the student learns by its own loss alone."""
        if isinstance(self.own, Learned):
            self.own.begin(model, batch)
        if self.fresh is None:
            log.warning("mutual: one student alone is trained here, by its own loss")
            return
        self.peer = self.fresh().to(batch.inputs.device)
        if isinstance(self.peers_own, Learned):
            self.peers_own.begin(self.peer, batch)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """The student's own loss watches it; the peer's has the peer."""
        with self.own.watching(model) if isinstance(self.own, Learned) else nullcontext():
            yield

    def after_step(self, model: nn.Module) -> None:
        """Each one's own loss follows that one."""
        for loss, network in ((self.own, model), (self.peers_own, self.peer)):
            if isinstance(loss, Learned) and network is not None:
                loss.after_step(network)

    def contenders(self, model: nn.Module) -> dict[str, nn.Module]:
        """Both, or the one that `keep` names."""
        both = {"student": model} if self.peer is None else {"student": model, "peer": self.peer}
        return {name: both[name] for name in both if self.peer is None or self.keep in ("better", name)}

    def forward(self, logits_BK: Tensor, batch: Batch) -> Tensor:
        """The losses of both, added: neither's gradient reaches the other."""
        own = self.own(logits_BK, batch)
        if self.peer is None:
            return own
        peers_BK, seen = answered(self.peers_own, self.peer, batch)
        divergences = [
            soft_divergence(ours, theirs.detach(), self.temperature).mean()
            for ours, theirs in ((logits_BK, peers_BK), (peers_BK, logits_BK))
        ]
        return own + self.peers_own(peers_BK, seen) + self.weight * (divergences[0] + divergences[1])


class Momentum(Learned):
    """`kd` from a moving average of a network that goes on learning: of the student itself, or of the loaded teacher.

    of: student, a mean teacher: average <- d average + (1 - d) student after every step (Tarvainen and Valpola 2017, Mean
    Teachers are Better Role Models, section 2, there with a mean squared error between probabilities). It needs no other
    teacher; let alpha grow from 0, as its first answers are worth nothing.
    of: teacher, the same average of the loaded teacher, which goes on learning from the labels of the student's batches at
    `rate` times the student's learning rate. Each step trains the teacher, too, and asks its average.
    Where neither is at hand the stored soft labels teach.
    """

    def __init__(
        self,
        supplies: Supplies,
        *,
        of: Literal["student", "teacher"],
        decay: Beta,
        alpha: Quality,
        temperature: PositiveFloat,
        rate: Annotated[float, Field(gt=0, le=1)] = 0.1,
    ) -> None:
        super().__init__()
        self.of, self.decay, self.alpha, self.temperature, self.rate = of, decay, alpha, temperature, rate
        self.load = supplies.teacher
        self.pupil: nn.Module | None = None
        self.average: Averaged | None = None

    def begin(self, model: nn.Module, batch: Batch) -> None:
        """Take a copy of what is averaged."""
        if self.of == "teacher" and self.load is not None:
            self.pupil = self.load().to(batch.inputs.device)
            self.average = Averaged(self.pupil, self.decay)
        elif self.of == "student" and not isinstance(model, fx.GraphModule):  # observers and switches do not average
            self.average = Averaged(model, self.decay)
        else:
            log.warning("momentum: no %s can go on learning here; the stored soft labels teach", self.of)

    def train(self, mode: bool = True) -> "Momentum":
        """The average answers with its averaged norms."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def after_step(self, model: nn.Module) -> None:
        """Move the average towards what it is of."""
        if self.average is not None:
            self.average.decay = self.decay
            self.average.update(model if self.pupil is None else self.pupil)

    def forward(self, logits_BK: Tensor, batch: Batch) -> Tensor:
        """The student's loss, and that of a learning teacher added: neither's gradient reaches the other."""
        if self.average is not None:
            with torch.no_grad():
                batch = replace(batch, teacher_BK=self.average.model(batch.inputs).float())
        own = kd(logits_BK, batch, alpha=self.alpha, temperature=self.temperature)
        return own if self.pupil is None else own + cross_entropy(self.pupil(batch.inputs).float(), batch)
