"""How weights move. Each is a function of parameters, learning rate and weight decay that returns a torch optimizer."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from limbeck.params import Beta

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan's iteration: steep at 0, so that five steps bring singular values to between 0.7 and 1.2."""
NUM_STEPS = 5


def orthogonal(matrix_RC: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all about 1: of U S V' it is U V', by a Newton-Schulz iteration.

    X <- a X + (b X X' + c (X X')^2) X, from X = M / |M| (Jordan et al. 2024, Muon; Bernstein and Newhouse 2024, section 2).
    """
    a, b, c = QUINTIC
    rows, columns = matrix_RC.shape
    x = matrix_RC if rows <= columns else matrix_RC.T
    x = x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(NUM_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if rows <= columns else x.T


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum, made orthogonal for weights of two or more axes; vectors (biases, norms) take it as it is.

    A convolution's kernels are a matrix, a row for each output channel. W <- (1 - lr decay) W - lr sqrt(max(1, rows / columns)) O;
    v <- v - lr vectors u. torch.optim.Muon takes matrices alone, and always computes in bfloat16.
    """

    def __init__(
        self, parameters: Iterator[nn.Parameter], lr: float, weight_decay: float, momentum: float, vectors: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "vectors": vectors})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move what has a gradient."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                moved = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                moved.mul_(momentum).add_(parameter.grad)
                update = parameter.grad.add(moved, alpha=momentum)
                if update.ndim < 2:
                    parameter.sub_(update, alpha=lr * group["vectors"])
                    continue
                matrix_RC = orthogonal(update.flatten(1))
                rows, columns = matrix_RC.shape
                parameter.mul_(1 - lr * group["weight_decay"])
                parameter.sub_(matrix_RC.view_as(parameter), alpha=lr * max(1.0, rows / columns) ** 0.5)


def sgd(parameters: Iterator[nn.Parameter], lr: float, weight_decay: float, *, momentum: Beta) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov's momentum."""
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=momentum > 0)


def adamw(
    parameters: Iterator[nn.Parameter], lr: float, weight_decay: float, *, beta1: Beta = 0.9, beta2: Beta = 0.999
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=(beta1, beta2))


def muon(
    parameters: Iterator[nn.Parameter],
    lr: float,
    weight_decay: float,
    *,
    momentum: Beta = 0.9,
    vectors: NonNegativeFloat = 2.0,
) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024): few epochs of a network with batch norms take it further. `lr` is about a quarter of SGD's.

    `vectors`: the rate of biases and norms, in learning rates. Weight decay is decoupled, as AdamW's is, and of matrices alone.
    """
    return Muon(parameters, lr, weight_decay, momentum, vectors)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": sgd, "adamw": adamw, "muon": muon}
