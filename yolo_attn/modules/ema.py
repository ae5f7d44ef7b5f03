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

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Gate, GroupNorm, check_channels, fit_groups, identity_start, match, mean, spatial_mean, zero_
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
        g = x.reshape(-1, self.width, x.shape[2], x.shape[3])  # (BG, C/G, H, W)
        z_h, z_w = self.conv1x1(mean(g, 3)), self.conv1x1(mean(g, 2))  # (BG, C/G, H, 1), (BG, C/G, 1, W)
        y1 = self.gn(g * z_h.sigmoid() * z_w.sigmoid())
        y3 = self.conv3x3(g)
        s1 = match(self.gn.bias.view(1, -1, 1, 1).softmax(1), x)  # = softmax(spatial_mean(y1))
        s3 = match(spatial_mean(y3).softmax(1), x)
        score = (y3 * s1 + y1 * s3).sum(1, keepdim=True)
        return (g * match(self.gate(score), x)).reshape_as(x)

    def extra_repr(self) -> str:
        """Show G."""
        return f"groups={self.groups}"
