"""CIFAR-style residual networks (He et al. 2015, Deep Residual Learning, section 4.2)."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from limbeck.errors import ComponentError

Shortcut: TypeAlias = Literal["projection", "pad"]


class Pad(nn.Module):
    """Every second pixel, new channels of zeros around the old ones (option A): [B, C, H, W] -> [B, 2 C, H/2, W/2]."""

    keeps_channels = True  # old and new ones have other numbers, which no dependency graph knows

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / 2), ceil(W / 2)]."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()  # one each: PT2E cannot tell two uses of one module apart
        self.shortcut: nn.Module = nn.Identity()
        if shortcut == "pad" and stride != 1:
            self.shortcut = Pad(inputs, outputs)
        elif stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        branch = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(branch + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A stem, three stages of blocks, average pooling, a linear head."""

    def __init__(
        self, channels: int, num_classes: int, widths: Sequence[int], num_blocks: Sequence[int], shortcut: Shortcut
    ) -> None:
        super().__init__()
        inputs = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, inputs, 3, padding=1, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()
        )
        blocks = []
        for stage, (outputs, count) in enumerate(zip(widths, num_blocks, strict=True)):
            for block in range(count):
                blocks.append(Block(inputs, outputs, stride=2 if stage and not block else 1, shortcut=shortcut))
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


Stages: TypeAlias = tuple[PositiveInt, PositiveInt, PositiveInt]
Depth: TypeAlias = Annotated[int, AfterValidator(_six_n_plus_two)]


def resnet(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    width: PositiveInt | Stages,
    depth: Depth | Stages,
    shortcut: Shortcut = "projection",
) -> nn.Module:
    """ResNet of `depth` = 6n + 2 layers: three stages of n blocks, `width`, 2 x and 4 x channels wide.

    Three numbers instead say it stage by stage: `width: [16, 32, 48], depth: [2, 2, 1]` are widths and blocks.
    `shortcut`: where the size changes, a 1x1 convolution (`projection`, option B) or zero channels (`pad`, option A).

    Raises:
        ComponentError: a sample that is no image; zero channels where a stage is narrower than the one before.

    """
    if len(shape) != 3:
        raise ComponentError(f"resnet takes images, found samples of shape {shape}; choose mlp for features.")
    widths = (width, 2 * width, 4 * width) if isinstance(width, int) else tuple(width)
    num_blocks = ((depth - 2) // 6,) * 3 if isinstance(depth, int) else tuple(depth)
    if shortcut == "pad" and list(widths) != sorted(widths):
        raise ComponentError(f"resnet: shortcut pad only adds channels, found widths {widths}; choose projection.")
    return ResNet(shape[0], num_classes, widths, num_blocks, shortcut)
