"""Depthwise separable networks for keywords (Zhang et al. 2017, Hello Edge: Keyword Spotting on Microcontrollers)."""

from pydantic import PositiveInt
from torch import Tensor, nn

from limbeck.errors import ComponentError


def _separable(width: int) -> list[nn.Module]:
    """Each channel filtered by itself, then all of them mixed."""
    return [
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
    ]  # fmt: skip


class DSCNN(nn.Module):
    """A convolution of 10 steps and 4 mels with stride 2, separable ones of one width, average pooling, a linear head."""

    def __init__(self, channels: int, num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        stem = nn.Conv2d(channels, width, (10, 4), stride=2, padding=(4, 1), bias=False)
        blocks = [layer for _ in range(depth) for layer in _separable(width)]
        self.layers = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU(), *blocks)
        self.head = nn.Linear(width, num_classes)

    def forward(self, spectra_BCJM: Tensor) -> Tensor:
        """[B, C, steps, mels] -> logits [B, K]."""
        return self.head(self.layers(spectra_BCJM).mean((2, 3)))  # type: ignore[no-any-return]


def ds_cnn(shape: tuple[int, ...], num_classes: int, *, width: PositiveInt, depth: PositiveInt) -> nn.Module:
    """DS-CNN of `depth` separable convolutions; the paper's small one is `width: 64, depth: 4`.

    Raises:
        ComponentError: a sample that is no image, or a smaller one than 2 steps of 2 mels.

    """
    if len(shape) != 3:
        raise ComponentError(f"ds_cnn takes images, found samples of shape {shape}; for sound put it into logmel.")
    if min(shape[1:]) < 2:
        raise ComponentError(f"ds_cnn takes at least 2 steps of 2 mels, found samples of shape {shape}.")
    return DSCNN(shape[0], num_classes, width, depth)
