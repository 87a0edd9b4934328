"""The networks that the commands train: a small one, and residual networks for small and for large images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from mixcollate.commands import Refusal


def small(channels: int, classes: int) -> nn.Module:
    """Three convolutions and a linear layer, for images of any size."""
    layers: list[nn.Module] = []
    for before, after, stride in ((channels, 32, 2), (32, 64, 1), (64, 128, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


class Block(nn.Module):
    """A pre-activation residual block of two convolutions (https://arxiv.org/abs/1603.05027)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.norm1(x))
        added: Tensor = x if self.skip is None else self.skip(active)
        change: Tensor = self.conv2(relu(self.norm2(self.conv1(active))))
        return added + change


def residual(channels: int, classes: int, *, blocks: int, width: int) -> nn.Module:
    """Three stages of blocks, of widths ``width``, ``2 * width`` and ``4 * width``, for images of about 32 pixels."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    before = 16
    for stage in range(3):
        for block in range(blocks):
            after = width << stage
            layers.append(Block(before, after, 2 if stage and not block else 1))
            before = after
    return nn.Sequential(
        *layers, nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)
    )


def resnet50(channels: int, classes: int, *, pretrained: bool = False) -> nn.Module:
    """torchvision's ResNet-50 for large images, optionally with its ImageNet weights except for the last layer."""
    from torchvision import models

    if pretrained and channels != 3:
        raise Refusal(f"pretrained weights require images of 3 channels, got {channels}; use --start random")
    try:
        model: nn.Module = models.resnet50(weights=models.ResNet50_Weights.DEFAULT if pretrained else None)
    except OSError as error:  # among them those of urllib
        raise Refusal(f"the pretrained weights are not in torch's cache and cannot be downloaded: {error}") from error
    if channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    model.fc = nn.Linear(2048, classes)
    return model


ARCHITECTURES: dict[str, Callable[[int, int], nn.Module]] = {
    "small": small,
    "resnet20": lambda channels, classes: residual(channels, classes, blocks=3, width=16),
    "wrn-16-4": lambda channels, classes: residual(channels, classes, blocks=2, width=64),
    "resnet50": resnet50,
}


def transfer(source: nn.Module, target: nn.Module) -> None:
    """Copy a network into another of the same architecture, except for the last layer, which is registered last."""
    weights = source.state_dict()
    for name in list(weights)[-2:]:
        del weights[name]
    with torch.no_grad():
        target.load_state_dict(weights, strict=False)
