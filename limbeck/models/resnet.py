"""CIFAR-style residual networks (He et al. 2015, Deep Residual Learning, section 4.2), projection shortcuts."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, PositiveInt
from torch import Tensor, nn

from limbeck.errors import ComponentError


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()  # one each: PT2E cannot tell two uses of one module apart
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        branch = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(branch + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A stem, three stages of widths `width`, 2 x and 4 x, average pooling, a linear head."""

    def __init__(self, channels: int, num_classes: int, width: int, num_blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks = []
        inputs = width
        for stage, outputs in enumerate((width, 2 * width, 4 * width)):
            for block in range(num_blocks):
                blocks.append(Block(inputs, outputs, stride=2 if stage and not block else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        return self.head(self.blocks(self.stem(images_BCHW)).mean((2, 3)))  # type: ignore[no-any-return]


def _six_n_plus_two(depth: int) -> int:
    if depth < 8 or (depth - 2) % 6:
        raise ValueError("expected 6n + 2: 8, 14, 20, ...")
    return depth


Depth: TypeAlias = Annotated[int, AfterValidator(_six_n_plus_two)]


def resnet(shape: tuple[int, ...], num_classes: int, *, width: PositiveInt, depth: Depth) -> nn.Module:
    """ResNet of `depth` = 6n + 2 layers, n blocks in each of three stages.

    Raises:
        ComponentError: a sample that is no image.

    """
    if len(shape) != 3:
        raise ComponentError(f"resnet takes images, found samples of shape {shape}; choose a model for features.")
    return ResNet(shape[0], num_classes, width, (depth - 2) // 6)
