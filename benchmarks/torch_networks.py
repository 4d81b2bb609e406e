"""ResNet50-IBN-a and EfficientNet-B1 in PyTorch, for `benchmarks.models` alone.

Written from the descriptions of their authors, under their authors' names for the
parameters: what `dex_jax.models.save_torch_weights` writes loads as it is.
"""

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
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.half)

    def forward(self, x: Any) -> Any:
        first, second = x[:, : self.half].contiguous(), x[:, self.half :].contiguous()
        return torch.cat([self.IN(first), self.BN(second)], 1)


class Residual(nn.Module):
    """A bottleneck block."""

    def __init__(self, channels_in: int, planes: int, stride: int, *, ibn: bool):
        super().__init__()
        out = 4 * planes
        self.conv1 = nn.Conv2d(channels_in, planes, 1, bias=False)
        self.bn1 = SplitNorm(planes) if ibn else nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels_in != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Any) -> Any:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nn.Module):
    """IBN-a in the first three stages; last stride 1, no classifier."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, count in enumerate((3, 4, 6, 3)):
            planes, first = 64 * 2**stage, (1, 2, 2, 1)[stage]
            blocks: list[Any] = []
            for stride in (first, *[1] * (count - 1)):
                blocks.append(Residual(channels, planes, stride, ibn=stage < 3))
                channels = 4 * planes
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: Any) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


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
        self._expand_conv = None
        if expand > 1:
            self._expand_conv = nn.Conv2d(channels_in, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv(
            wide, wide, kernel, stride, groups=wide, bias=False
        )
        self._bn1 = _norm(wide)
        self._se_reduce = nn.Conv2d(wide, channels_in // 4, 1)
        self._se_expand = nn.Conv2d(channels_in // 4, wide, 1)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = _norm(out)
        self.swish = nn.SiLU(inplace=True)
        self.adds = stride == 1 and channels_in == out

    def forward(self, x: Any) -> Any:
        y = x
        if self._expand_conv is not None:
            y = self.swish(self._bn0(self._expand_conv(y)))
        y = self.swish(self._bn1(self._depthwise_conv(y)))
        gate = self.swish(self._se_reduce(functional.adaptive_avg_pool2d(y, 1)))
        y = self._bn2(self._project_conv(y * torch.sigmoid(self._se_expand(gate))))
        return x + y if self.adds else y


class EfficientNetB1(nn.Module):
    """Last stride 1, no classifier."""

    def __init__(self):
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks: list[Any] = []
        channels = 32
        for index, stage in enumerate(STAGES):
            first = 1 if index == 5 else stage.stride
            count = (2, 3, 3, 4, 4, 5, 2)[index]
            for stride in (first, *[1] * (count - 1)):
                out = stage.channels
                block = MobileBlock(channels, out, stage.kernel, stride, stage.expand)
                blocks.append(block)
                channels = out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self.swish = nn.SiLU(inplace=True)

    def forward(self, x: Any) -> Any:
        x = self._blocks(self.swish(self._bn0(self._conv_stem(x))))
        return self.swish(self._bn1(self._conv_head(x)))


BUILDERS = {"resnet50_ibn_a": ResNet50, "efficientnet_b1": EfficientNetB1}
