"""A residual network of fewer, smaller blocks: one convolution each, and a plain one before every stage."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from limbeck.errors import ComponentError


class Block(nn.Module):
    """One 3x3 convolution and a shortcut around it: [B, C, H, W] -> the same."""

    is_residual = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.relu(x + self.norm(self.conv(x)))  # type: ignore[no-any-return]


class LeanResNet(nn.Module):
    """Stages of a plain convolution, which halves the size in all but the first, and residual ones; average pooling, a linear head."""

    def __init__(self, channels: int, num_classes: int, widths: Sequence[int], num_blocks: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for stage, (outputs, count) in enumerate(zip(widths, num_blocks, strict=True)):
            conv = nn.Conv2d(inputs, outputs, 3, stride=2 if stage else 1, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU(), *(Block(outputs) for _ in range(count))]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        return self.head(self.layers(images_BCHW).mean((2, 3)))  # type: ignore[no-any-return]


def lean_resnet(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    width: Annotated[tuple[PositiveInt, ...], Field(min_length=1)],
    depth: tuple[NonNegativeInt, ...],
) -> nn.Module:
    """Stages of `width` channels, each a plain convolution and `depth` residual blocks of one convolution.

    The first stage keeps the size, every other one halves it: `width: [16, 32, 40, 56], depth: [0, 1, 1, 1]`.

    Raises:
        ComponentError: a sample that is no image; not as many depths as widths.

    """
    if len(shape) != 3:
        raise ComponentError(f"lean_resnet takes images, found samples of shape {shape}; choose mlp for features.")
    if len(width) != len(depth):
        raise ComponentError(
            f"lean_resnet: expected a depth for each width, found {len(width)} widths, {len(depth)} depths."
        )
    return LeanResNet(shape[0], num_classes, width, depth)
