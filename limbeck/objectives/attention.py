"""Attention transfer: where in an image a network is active. Legend: B batch, C channels, H W map."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional

from limbeck.errors import ComponentError
from limbeck.models import LAYERS
from limbeck.objectives.batch import Batch
from limbeck.objectives.learned import Learned, Supplies

Maps = dict[tuple[int, int], Tensor]
"""The last activation [B, C, H, W] of each size (H, W)."""


@contextmanager
def mapped(model: nn.Module) -> Iterator[Maps]:
    """Within, a forward pass of `model` leaves its last activation of every size in the maps; the input is none."""
    maps: Maps = {}
    has_begun = False

    def keep(module: nn.Module, _: tuple[Tensor, ...], output: object) -> None:
        nonlocal has_begun
        has_begun = has_begun or isinstance(module, LAYERS)
        if has_begun and isinstance(output, Tensor) and output.dim() == 4:
            maps[(output.shape[2], output.shape[3])] = output

    leaves = [module for module in model.modules() if not any(module.children())]
    handles = [leaf.register_forward_hook(keep) for leaf in leaves]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


class Attention(Learned):
    """Attention transfer: hard CE + beta sum over sizes of mean (Q_student / |Q_student| - Q_teacher / |Q_teacher|)^2.

    Q [B, H W] is the mean over channels of a map's squares, |Q| its length (Zagoruyko and Komodakis 2017, Paying More
    Attention to Attention, eq. 2; squared and with beta = 1000 in the authors' code). Maps are the last activation of each
    size that both networks have. Soft labels hold none: the loaded teacher answers every batch, which costs its
    forward pass. Where there is no teacher, or the student is a graph without named layers, the labels alone teach.
    """

    def __init__(self, supplies: Supplies, *, beta: NonNegativeFloat, hard: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        self.beta, self.hard = beta, hard
        self.load = supplies.teacher
        self.teacher: list[nn.Module] = []  # no submodule: it stays as it is, and out of the state of a killed run
        self.sizes: list[tuple[int, int]] = []
        self.seen: Maps = {}

    @property
    def watches(self) -> bool:
        """It looks into the student where there is something to compare."""
        return bool(self.teacher)

    def begin(self, model: nn.Module, batch: Batch) -> None:
        """Load the teacher and find the sizes that both have.

        Raises:
            ComponentError: no map of one has the size of a map of the other.

        """
        ours = sizes_of(model, batch.inputs[:1])
        if self.load is None or ours is None:
            logging.getLogger(__name__).warning(
                "attention: there are no two networks to compare here; the labels teach"
            )
            return
        self.teacher = [self.load().requires_grad_(False).to(batch.inputs.device).eval()]
        theirs = sizes_of(self.teacher[0], batch.inputs[:1]) or []
        self.sizes = [size for size in ours if size in theirs]
        if not self.sizes:
            shown = [", ".join(f"{height}x{width}" for height, width in sizes) or "none" for sizes in (ours, theirs)]
            raise ComponentError(
                f"loss 'attention': no map of the student ({shown[0]}) has the size of one of the teacher's ({shown[1]}); "
                "choose a student that halves images as its teacher does, or a loss on features or logits."
            )

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Keep the student's maps of a forward pass within."""
        if not self.watches:
            yield
            return
        with mapped(model) as self.seen:
            yield

    def forward(self, logits_BK: Tensor, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar."""
        own = self.hard * functional.cross_entropy(logits_BK, batch.labels)
        if not self.teacher:
            return own
        with torch.no_grad(), mapped(self.teacher[0]) as taught:
            self.teacher[0](batch.inputs)
        seen, self.seen = self.seen, {}
        squares = [functional.mse_loss(attention(seen[size]), attention(taught[size])) for size in self.sizes]
        return own + self.beta * torch.stack(squares).sum()


def attention(map_BCHW: Tensor) -> Tensor:
    """[B, C, H, W] -> where it is active [B, H W], each of length 1."""
    return functional.normalize(map_BCHW.float().square().mean(1).flatten(1), dim=1)


def sizes_of(model: nn.Module, samples: Tensor) -> list[tuple[int, int]] | None:
    """The sizes of a model's maps, from raw samples [B, ...]; None of a graph that has no layers as modules."""
    if not any(isinstance(layer, LAYERS) for layer in model.modules()):
        return None
    was_training = model.training
    with torch.no_grad(), mapped(model.eval()) as maps:
        model(samples)
    model.train(was_training)
    return [size for size in maps if size != (1, 1)]
