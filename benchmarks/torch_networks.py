"""ResNet50-IBN-a and EfficientNet-B1 in PyTorch, for `benchmarks.models` alone."""

import importlib
from typing import Any

from dex_jax.models._efficientnet import STAGES

# Not a dependency of the project, so it is looked up only when this file is used.
torch: Any = importlib.import_module("torch")
nn = torch.nn
functional = nn.functional


class SplitNorm(nn.Module):
    """Instance norm on the first half of the channels, batch norm on the rest."""

    def __init__(self, channels: int):
        super().__init__()
        self.half = channels // 2
        self.instance = nn.InstanceNorm2d(self.half, affine=True)
        self.batch = nn.BatchNorm2d(channels - self.half)

    def forward(self, x: Any) -> Any:
        first, second = x[:, : self.half].contiguous(), x[:, self.half :].contiguous()
        return torch.cat([self.instance(first), self.batch(second)], 1)


class Residual(nn.Module):
    """A bottleneck block."""

    def __init__(self, channels_in: int, planes: int, stride: int, *, ibn: bool):
        super().__init__()
        out = 4 * planes
        self.branch = nn.Sequential(
            nn.Conv2d(channels_in, planes, 1, bias=False),
            SplitNorm(planes) if ibn else nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, planes, 3, stride, 1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or channels_in != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Any) -> Any:
        return functional.relu(self.branch(x) + self.shortcut(x))


def resnet50_ibn_a() -> Any:
    """Last stride 1, no classifier."""
    layers: list[Any] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        planes = 64 * 2**stage
        for block in range(count):
            stride = (1, 2, 2, 1)[stage] if block == 0 else 1
            layers.append(Residual(channels, planes, stride, ibn=stage < 3))
            channels = 4 * planes
    return nn.Sequential(*layers)


class SameConv(nn.Conv2d):
    """TensorFlow's padding, worked out from the size of each input."""

    def forward(self, input: Any) -> Any:
        pads: list[int] = []
        for size, kernel, stride in zip(
            reversed(input.shape[2:]), self.kernel_size, self.stride, strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(input, pads) if any(pads) else input)


def _norm(channels: int) -> Any:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class MobileBlock(nn.Module):
    """Widen, depthwise convolution, squeeze-excite, project."""

    def __init__(
        self, channels_in: int, out: int, kernel: int, stride: int, expand: int
    ):
        super().__init__()
        wide = channels_in * expand
        widen: list[Any] = []
        if expand > 1:
            widen = [nn.Conv2d(channels_in, wide, 1, bias=False), _norm(wide)]
            widen.append(nn.SiLU(inplace=True))
        depthwise = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self.first = nn.Sequential(*widen, depthwise, _norm(wide), nn.SiLU())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, channels_in // 4, 1),
            nn.SiLU(),
            nn.Conv2d(channels_in // 4, wide, 1),
            nn.Sigmoid(),
        )
        self.project = nn.Sequential(nn.Conv2d(wide, out, 1, bias=False), _norm(out))
        self.adds = stride == 1 and channels_in == out

    def forward(self, x: Any) -> Any:
        y = self.first(x)
        y = self.project(y * self.gate(y))
        return x + y if self.adds else y


def efficientnet_b1() -> Any:
    """Last stride 1, no classifier."""
    layers: list[Any] = [SameConv(3, 32, 3, 2, bias=False), _norm(32), nn.SiLU()]
    channels = 32
    for index, stage in enumerate(STAGES):
        first = 1 if index == 5 else stage.stride
        for block in range((2, 3, 3, 4, 4, 5, 2)[index]):
            stride = first if block == 0 else 1
            layers.append(
                MobileBlock(
                    channels, stage.channels, stage.kernel, stride, stage.expand
                )
            )
            channels = stage.channels
    layers += [nn.Conv2d(320, 1280, 1, bias=False), _norm(1280), nn.SiLU()]
    return nn.Sequential(*layers)


BUILDERS = {"resnet50_ibn_a": resnet50_ibn_a, "efficientnet_b1": efficientnet_b1}
