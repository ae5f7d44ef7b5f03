"""Efficient Multi-Scale Attention Module with Cross-Spatial Learning, Ouyang, He, Zhang, Luo, Guo, Zhan, Huang,
https://arxiv.org/abs/2305.13563

The channels fall into G groups, which share all weights. 1 x 1 branch: the means along width and height pass one
1 x 1 convolution and a sigmoid each; the group times both is normalised, channel by channel (group norm). 3 x 3
branch: a 3 x 3 convolution. Cross-spatial learning: the softmax over the channel means of each branch weighs the
channels of the other; the sum of the two maps, through a sigmoid, is the gate of the group.

Equal to: the formula. G is lowered to the greatest common divisor with C. The mean of a channel right after its group
norm is that norm's bias, so the softmax of the first branch is taken of the bias, without another pass over the map.
Not to be confused with the exponential moving average of weights.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    Gate,
    GroupNorm,
    channel_norm,
    check_channels,
    fit_groups,
    identity_start,
    match,
    mean,
    spatial_mean,
    traced,
    zero_,
)
from ._gates import Gates, over_input

__all__ = ["EMAttention"]


@register(
    "EMAttention",
    aliases=("EMA", "EMA_attention", "EfficientMultiScaleAttention"),
    paper="Efficient Multi-Scale Attention Module with Cross-Spatial Learning",
    arxiv="2305.13563",
    kind="both",
    oracle="formula",
    use="positions from two scales, few weights; its authors place it behind the last backbone C3 blocks",
)
class EMAttention(nn.Module):
    """Efficient multi-scale attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        groups: G, the authors' `factor`, lowered until it divides C.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: `groups` below 1, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "both branches 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("value")

    def __init__(self, channels: int, *, groups: int = 32, gate: str = "sigmoid", start: str = "paper") -> None:
        super().__init__()
        self.groups = fit_groups(check_channels(channels, "EMAttention"), groups)
        self.width = width = channels // self.groups
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.gn = GroupNorm(width, width)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.gn, self.conv3x3)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each group of `x`."""
        if traced():
            return self.by_group(x)
        g = x.reshape(-1, self.width, x.shape[2], x.shape[3])  # (BG, C/G, H, W)
        z_h, z_w = self.conv1x1(mean(g, 3)), self.conv1x1(mean(g, 2))  # (BG, C/G, H, 1), (BG, C/G, 1, W)
        y1 = self.gn(g * z_h.sigmoid() * z_w.sigmoid())
        y3 = self.conv3x3(g)
        s1 = match(self.gn.bias.view(1, -1, 1, 1).softmax(1), x)  # = softmax(spatial_mean(y1))
        s3 = match(spatial_mean(y3).softmax(1), x)
        score = (y3 * s1 + y1 * s3).sum(1, keepdim=True)
        return (g * match(self.gate(score), x)).reshape(x.shape)

    def by_group(self, x: Tensor) -> Tensor:
        """Do the same for export: grouped convolutions, the weights repeated, instead of groups in the batch."""
        n = self.groups
        c = n * self.width

        def each(t: Tensor) -> Tensor:
            return torch.cat([t] * n)

        def grouped(layer: nn.Conv2d, t: Tensor) -> Tensor:
            weight, bias = each(layer.weight), each(layer.bias)  # type: ignore[arg-type]
            return nn.functional.conv2d(t, weight, bias, padding=layer.padding, groups=n)

        z_h, z_w = grouped(self.conv1x1, mean(x, 3)), grouped(self.conv1x1, mean(x, 2))
        y1 = x * z_h.sigmoid() * z_w.sigmoid()
        y1 = channel_norm(y1, each(self.gn.weight), each(self.gn.bias), self.gn.eps)
        y3 = grouped(self.conv3x3, x)
        s1 = each(self.gn.bias.softmax(0)).reshape(1, c, 1, 1)
        s3 = spatial_mean(y3).reshape(-1, n, self.width, 1).softmax(2).reshape(-1, c, 1, 1)
        ones = each(torch.ones_like(self.conv1x1.weight))  # a group's sum, for each of its channels
        return x * self.gate(nn.functional.conv2d(y3 * s1 + y1 * s3, ones, groups=n))

    def extra_repr(self) -> str:
        """Show G."""
        return f"groups={self.groups}"
