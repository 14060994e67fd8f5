"""Inverted residuals with linear bottlenecks (Sandler et al. 2018, MobileNetV2), with the stem of CIFAR networks.

Unlike the published one for ImageNet, the stem keeps the resolution, three stages halve it twice, and every width
follows from one. ReLU stands for ReLU6: what is 8 bits wide has its ceiling from calibration.
"""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, PositiveInt
from torch import Tensor, nn

from limbeck.errors import ComponentError


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size at stride 1, and its norm."""
    return [
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter each channel by itself, narrow again without a nonlinearity.

    [B, inputs, H, W] -> [B, outputs, H / stride, W / stride]; added to its input where both have one shape.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        widen = [*_convolution(inputs, wide, 1), nn.ReLU()] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen, *_convolution(wide, wide, 3, stride, groups=wide), nn.ReLU(), *_convolution(wide, outputs, 1)
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        branch: Tensor = self.layers(x)
        return x + branch if self.is_residual else branch


class MobileNet(nn.Module):
    """A stem, three stages of widths `width`, 2 x and 4 x, a 1x1 convolution to 8 x, average pooling, a linear head."""

    def __init__(self, channels: int, num_classes: int, width: int, num_blocks: int, expansion: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(channels, width, 3), nn.ReLU())
        blocks = []
        inputs = width
        for stage, outputs in enumerate((width, 2 * width, 4 * width)):
            for block in range(num_blocks):
                blocks.append(InvertedResidual(inputs, outputs, 2 if stage and not block else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.top = nn.Sequential(*_convolution(inputs, 2 * inputs, 1), nn.ReLU())
        self.head = nn.Linear(2 * inputs, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        return self.head(self.top(self.blocks(self.stem(images_BCHW))).mean((2, 3)))  # type: ignore[no-any-return]


def _multiple_of_three(depth: int) -> int:
    if depth < 3 or depth % 3:
        raise ValueError("expected a multiple of 3: 3, 6, 9, ...")
    return depth


Depth: TypeAlias = Annotated[int, AfterValidator(_multiple_of_three)]


def mobilenet(
    shape: tuple[int, ...], num_classes: int, *, width: PositiveInt, depth: Depth, expansion: PositiveInt = 6
) -> nn.Module:
    """MobileNet of `depth` = 3n inverted residuals, n in each of three stages, `expansion` times as wide inside.

    Raises:
        ComponentError: a sample that is no image.

    """
    if len(shape) != 3:
        raise ComponentError(f"mobilenet takes images, found samples of shape {shape}; choose mlp for features.")
    return MobileNet(shape[0], num_classes, width, depth // 3, expansion)
