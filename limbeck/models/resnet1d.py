"""Residual networks over time, for sensor series (Wang, Yan and Oates 2017, Time Series Classification from Scratch)."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, PositiveInt
from torch import Tensor, nn

from limbeck.errors import ComponentError


def _over_time(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A convolution of `kernel` steps and its norm: [B, inputs, 1, T] -> [B, outputs, 1, ceil(T / stride)].

    An image one pixel high instead of Conv1d: torchao's quantizer for x86 leaves Conv1d in float, and ONNX Runtime has
    its blocked fp32 kernels for two axes only.
    """
    return [
        nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), padding=(0, kernel // 2), bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Block(nn.Module):
    """Two convolutions and a shortcut: [B, inputs, 1, T] -> [B, outputs, 1, ceil(T / stride)]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_over_time(inputs, outputs, kernel, stride), nn.ReLU(), *_over_time(outputs, outputs, kernel)
        )
        self.shortcut = nn.Sequential(*_over_time(inputs, outputs, 1, stride)) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU()
        self.is_residual = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 1, T] -> [B, C', 1, T']."""
        return self.relu(self.branch(x) + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet1d(nn.Module):
    """A stem of stride 2, residual blocks that halve the steps and double the width, mean over time, a linear head."""

    def __init__(self, channels: int, num_classes: int, width: int, depth: int, kernel: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_over_time(channels, width, kernel, 2), nn.ReLU())
        blocks = [Block(width, width, kernel, 1)]
        blocks += [Block(width * 2**n, width * 2 ** (n + 1), kernel, 2) for n in range(depth - 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width * 2 ** (depth - 1), num_classes)

    def forward(self, series_BCT: Tensor) -> Tensor:
        """[B, C, T] -> logits [B, K]."""
        return self.head(self.blocks(self.stem(series_BCT.unsqueeze(2))).mean((2, 3)))  # type: ignore[no-any-return]


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError("expected an odd number of steps: 3, 5, 7, ...")
    return kernel


Kernel: TypeAlias = Annotated[PositiveInt, AfterValidator(_odd)]


def resnet1d(
    shape: tuple[int, ...], num_classes: int, *, width: PositiveInt, depth: PositiveInt, kernel: Kernel
) -> nn.Module:
    """`depth` residual blocks of widths `width`, 2 x, 4 x, ... with convolutions of `kernel` steps.

    As published but for the sizes: strides instead of full length in every block, one kernel instead of 8, 5 and 3, two
    convolutions a block instead of three.

    Raises:
        ComponentError: a sample that is no sequence.

    """
    if len(shape) != 2:
        raise ComponentError(
            f"resnet1d takes sequences [T, C], found samples of shape {shape}; choose resnet for images, mlp for features."
        )
    return ResNet1d(shape[0], num_classes, width, depth, kernel)
