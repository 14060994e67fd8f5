"""A network whose weights follow another's."""

import copy

import torch
from torch import nn


class Averaged(nn.Module):
    """Exponential moving average of weights *and* BN buffers: avg <- d avg + (1 - d) model.

    The decay warms up, d_n = min(d, (1 + n) / (10 + n)), so that the first weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.num_updates = decay, 0

    def get_extra_state(self) -> int:
        """The number of updates, beside the weights."""
        return self.num_updates

    def set_extra_state(self, state: int) -> None:
        """Go on after so many updates."""
        self.num_updates = state

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards `model`."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        own, new = self.model.state_dict(), model.state_dict()
        floats = [name for name, value in own.items() if value.is_floating_point()]
        torch._foreach_lerp_([own[name] for name in floats], [new[name] for name in floats], 1 - decay)
        for name in own.keys() - set(floats):
            own[name].copy_(new[name])
