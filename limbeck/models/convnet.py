"""A plain convolutional network for devices with kilobytes to spare."""

from math import ceil

from pydantic import PositiveInt
from torch import Tensor, nn

from limbeck.errors import ComponentError


class ConvNet(nn.Module):
    """3x3 convolutions of stride 2 that double the width, average pooling to 2x2, a linear head."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs, rows, columns = shape
        for layer in range(depth):
            outputs = width * 2**layer
            stride = 2 if layer else 1
            layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
            rows, columns = ceil(rows / stride), ceil(columns / stride)
        self.layers = nn.Sequential(*layers)
        # AdaptiveAvgPool2d(2) by another name: that one has no deterministic gradient on CUDA
        self.pool = nn.AvgPool2d((ceil(rows / 2), ceil(columns / 2)), (max(1, rows // 2), max(1, columns // 2)))
        self.head = nn.Linear(min(2, rows) * min(2, columns) * inputs, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        return self.head(self.pool(self.layers(images_BCHW)).flatten(1))  # type: ignore[no-any-return]


def convnet(shape: tuple[int, ...], num_classes: int, *, width: PositiveInt, depth: PositiveInt) -> nn.Module:
    """`depth` convolutions of widths `width`, 2 x, 4 x, ...

    Raises:
        ComponentError: a sample that is no image.

    """
    if len(shape) != 3:
        raise ComponentError(f"convnet takes images, found samples of shape {shape}; choose mlp for features.")
    return ConvNet(shape, num_classes, width, depth)
