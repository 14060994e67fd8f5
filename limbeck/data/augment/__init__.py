"""Augmentations: components that make numbered views of a split (see `views.py`).

`chain` joins several; a mixing one comes last. Raw images are whole values 0 to 255,
sound is int16.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from limbeck.components import Component, bind
from limbeck.data.augment.codes import drop_codes
from limbeck.data.augment.colour import color_jitter
from limbeck.data.augment.erasing import erasing
from limbeck.data.augment.geometry import affine, crop_flip
from limbeck.data.augment.identity import none
from limbeck.data.augment.mixing import cutmix, mixup
from limbeck.data.augment.randaugment import randaugment
from limbeck.data.augment.series import jitter, scaling, tempo
from limbeck.data.augment.views import Augment, Blend, Mix, Mixed, Views
from limbeck.data.augment.waves import gain, noise, time_shift
from limbeck.errors import ComponentError

__all__ = ["AUGMENTS", "Augment", "Blend", "Mix", "Mixed", "Views"]


class Chain:
    """Augmentations one after the other, each with draws of its own."""

    def __init__(self, steps: Sequence[Augment]) -> None:
        self.steps = steps
        self.widths = [step.draw(1, torch.Generator()).shape[1] for step in steps]

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """The draws of all steps: [num, D of all]."""
        return torch.cat([step.draw(num, generator) for step in self.steps], dim=1)

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        """Raw samples [B, ...] -> raw samples after every step."""
        for step, own in zip(self.steps, torch.split(draws, self.widths, dim=1), strict=True):
            samples = step.apply(samples, own)
        return samples


def chain(*, steps: Annotated[list[Component], Field(min_length=1)]) -> Augment | Mixed:
    """Augmentations one after the other; the last one may mix.

    Raises:
        ComponentError: one before the last mixes.

    """
    parts = [Component.model_validate(step) for step in steps]
    made: list[Augment | Mixed] = [bind(part, AUGMENTS, "augmentation")() for part in parts]
    before: list[Augment] = []
    for part, step in zip(parts[:-1], made[:-1], strict=True):
        if isinstance(step, Mixed):
            raise ComponentError(f"augmentation 'chain': {part.use} mixes samples; move it to the end of `steps`.")
        before.append(step)
    last = made[-1]
    return Mixed(Chain([*before, last.augment]), last.mix) if isinstance(last, Mixed) else Chain([*before, last])


AUGMENTS: dict[str, Callable[..., Augment | Mixed]] = {
    "none": none,
    "affine": affine,
    "crop_flip": crop_flip,
    "color_jitter": color_jitter,
    "randaugment": randaugment,
    "erasing": erasing,
    "jitter": jitter,
    "scaling": scaling,
    "tempo": tempo,
    "mixup": mixup,
    "cutmix": cutmix,
    "drop_codes": drop_codes,
    "time_shift": time_shift,
    "gain": gain,
    "noise": noise,
    "chain": chain,
}
