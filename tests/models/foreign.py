"""Architectures as other packages write them: classes by keyword, layers and names of their own."""

from typing import Any

import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """Names unlike ours; features of 8."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.bn1(self.conv1(x))).mean((2, 3)))  # type: ignore[no-any-return]


def backbone(pretrained: bool = False, **keywords: Any) -> nn.Module:
    """As timm's entry points: everything else goes through."""
    return Backbone(**keywords)


def listed(*, weights: Any = None, num_classes: int = 1000) -> nn.Module:
    """As torchvision's."""
    return Backbone(num_classes)


def headless(depth: int = 3) -> nn.Module:
    """Cannot be told the number of classes."""
    return nn.Conv2d(3, depth, 1)


def nothing(num_classes: int) -> Any:
    """Builds no module."""
    return num_classes


class Tuple(Backbone):
    """Answers more than logits."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class Chain(nn.Module):
    """Blocks 0 to 11 of one shape: sorted by name they stand in another order than defined."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.blocks = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(12)))
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]
