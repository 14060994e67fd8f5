"""How weights move. Each is a function of parameters, learning rate and weight decay that returns a torch optimizer."""

from collections.abc import Callable, Iterator

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from limbeck.params import Beta

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan's iteration: steep at 0, so that five steps bring what is above 0.003 of the norm to about 1."""
NUM_STEPS = 5
EPS = 1e-7
"""Of a norm below it nothing is made: the momentum of weights whose gradients have ended dies away."""


def orthogonal(matrix_RC: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all about 1 (0.68 to 1.13): of U S V' it is U V', by Newton and Schulz.

    X <- a X + (b X X' + c (X X')^2) X, from X = M / |M| (Jordan et al. 2024, Muon; Bernstein and Newhouse 2024, section 2).
    """
    a, b, c = QUINTIC
    rows, columns = matrix_RC.shape
    x = matrix_RC if rows <= columns else matrix_RC.T
    x = x / x.norm().clamp_min(EPS)
    for _ in range(NUM_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if rows <= columns else x.T


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum u, made orthogonal for weights of two or more axes: O. Kernels are a matrix, a row for each output channel.

    W <- (1 - lr decay) W - lr sqrt(max(1, rows / columns)) O. Vectors (biases, norms) and the last matrix, which is the classifier
    of a network of convolutions, move by lr plain u and do not decay. torch.optim.Muon takes matrices alone, and always computes
    in bfloat16.
    """

    def __init__(
        self, parameters: Iterator[nn.Parameter], lr: float, weight_decay: float, momentum: float, plain: float
    ) -> None:
        everything = list(parameters)
        matrices = [parameter for parameter in everything if parameter.ndim > 1]
        vectors = [parameter for parameter in everything if parameter.ndim < 2]
        groups = [
            {"params": matrices[:-1], "by_matrix": True},
            {"params": [*vectors, *matrices[-1:]], "by_matrix": False},
        ]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "plain": plain})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move what has a gradient. The closure's loss, if there is one."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if "momentum" not in self.state[parameter]:
                    self.state[parameter]["momentum"] = torch.zeros_like(parameter)
                momentum = self.state[parameter]["momentum"].mul_(group["momentum"]).add_(parameter.grad)
                update = parameter.grad.add(momentum, alpha=group["momentum"])
                if group["by_matrix"]:
                    matrix_RC = orthogonal(update.flatten(1))
                    rows, columns = matrix_RC.shape
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(matrix_RC.view_as(parameter), alpha=group["lr"] * max(1.0, rows / columns) ** 0.5)
                else:
                    parameter.sub_(update, alpha=group["lr"] * group["plain"])
        return loss


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
    plain: NonNegativeFloat = 2.0,
) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024), for networks of convolutions. Tables of embeddings are not for it.

    `plain`: the rate of biases, norms and the last layer, in learning rates; they take plain momentum, and do not decay.
    Weight decay of the other weights is decoupled, as AdamW's is.
    """
    return Muon(parameters, lr, weight_decay, momentum, plain)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": sgd, "adamw": adamw, "muon": muon}
