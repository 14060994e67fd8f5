"""A plain convolutional network for devices with kilobytes to spare."""

from torch import Tensor, nn


class ConvNet(nn.Module):
    """3x3 convolutions of stride 2 that double the width, average pooling to 2x2, a linear head."""

    def __init__(self, channels: int, num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for layer in range(depth):
            outputs = width * 2**layer
            stride = 2 if layer else 1
            layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(4 * inputs, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        return self.head(self.pool(self.layers(images_BCHW)).flatten(1))  # type: ignore[no-any-return]


def convnet(shape: tuple[int, ...], num_classes: int, *, width: int, depth: int) -> nn.Module:
    """`depth` convolutions of widths `width`, 2 x, 4 x, ...

    Raises:
        ValueError: a sample that is no image.

    """
    if len(shape) != 3:
        raise ValueError(f"convnet takes images, found samples of shape {shape}")
    return ConvNet(shape[0], num_classes, width, depth)
