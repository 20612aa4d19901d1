"""Residual networks for small images (He, Zhang, Ren & Sun 2016, section 4.2)."""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import pad

WIDTHS = (16, 32, 64)
"""Channels of the three stages."""


def resnet(depth: int, channels: int = 3, classes: int = 10) -> nn.Sequential:
    """A 3x3 convolution, three stages of blocks, average pooling, a linear layer: images (n, channels, h, w) -> scores (n, classes).

    A stage has (depth - 2) / 6 blocks. The first one of stages 2 and 3 halves the image and doubles the channels: it is called `down`; all
    others are `block<k>`, k their place in the stage from 1. So three globs match, from depth 14 on, the 3x3 convolutions of 32 or more
    input channels, which are those that Hawkins & Zhang (2021) tensorize, 71 of ResNet-110: `stage2.block*.conv?`, `stage2.down.conv2`,
    `stage3.*.conv?`. Convolutions start as He et al. (2015) draw them, normal with variance 2 / (9 input channels).
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth {depth}: expected 6 n + 2 with n blocks in each of three stages: give 20, 32, 44, 56, 110 or another such")
    if min(channels, classes) < 1:
        raise ValueError(f"{channels} channels, {classes} classes: give at least one of each")
    blocks = (depth - 2) // 6
    net = nn.Sequential(
        OrderedDict(
            stem=_stem(channels, WIDTHS[0]),
            stage1=_stage(blocks, WIDTHS[0], WIDTHS[0]),
            stage2=_stage(blocks, WIDTHS[0], WIDTHS[1]),
            stage3=_stage(blocks, WIDTHS[1], WIDTHS[2]),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(WIDTHS[2], classes),
        )
    )
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return net


class Block(nn.Module):
    """Two 3x3 convolutions, each with batch-norm, and a shortcut without parameters: (n, before, h, w) -> (n, after, h, w).

    Where `after` is more than `before` the image is halved, h and w rounded up: the shortcut takes every other pixel, and zeros stand in
    the channels that it lacks (option A of the paper).
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.more = after - before
        self.conv1 = nn.Conv2d(before, after, 3, stride=2 if self.more else 1, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.more:
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))
        return self.relu2(y + x)


def _stem(before: int, after: int) -> nn.Sequential:
    conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(after), relu=nn.ReLU()))


def _stage(blocks: int, before: int, after: int) -> nn.Sequential:
    first = "block1" if before == after else "down"
    others = {f"block{k}": Block(after, after) for k in range(2, blocks + 1)}
    return nn.Sequential(OrderedDict({first: Block(before, after)} | others))
