"""A network whose batch norms have seen other samples: their statistics are taken anew, and nothing is learned.

Li et al. 2016, Revisiting Batch Normalization for Practical Domain Adaptation (AdaBN), arXiv:1603.04779.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def renormed(network: nn.Module, x: NDArray[np.generic], batch_size: int) -> nn.Module | None:
    """A copy with the means and variances of `x` [N, ...], N >= 2; None where no batch norm keeps any."""
    made = copy.deepcopy(network).eval()
    norms = [module for module in made.modules() if isinstance(module, BATCH_NORM) and module.track_running_stats]
    if not norms:
        return None
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.inference_mode():
        for start in range(0, len(x) - 1, batch_size):  # one sample alone has no variance
            made(torch.from_numpy(np.array(x[start : start + batch_size])))
    return made.eval()
