"""A multilayer perceptron: for features [B, F] such as embeddings, and the plainest student for images."""

from math import prod

from pydantic import PositiveInt
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers of equal width with ReLU between them, a linear head.

    No norms: only convolutions have theirs folded in, on export and by the quantizer. The weights start by He et al.
    (2015, Delving Deep into Rectifiers, eq. 10), so that depth does without them.
    """

    def __init__(self, inputs: int, num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(depth):
            linear = nn.Linear(inputs, width)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, samples: Tensor) -> Tensor:
        """[B, F] or [B, C, H, W] -> logits [B, K]."""
        return self.head(self.layers(samples.flatten(1)))  # type: ignore[no-any-return]


def mlp(shape: tuple[int, ...], num_classes: int, *, width: PositiveInt, depth: PositiveInt) -> nn.Module:
    """`depth` hidden layers of `width` units, on samples of any shape."""
    return MLP(prod(shape), num_classes, width, depth)
