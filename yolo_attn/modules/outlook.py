"""VOLO: Vision Outlooker for Visual Recognition, Yuan, Hou, Jiang, Feng, Yan, https://arxiv.org/abs/2106.13112

Outlook attention: a linear layer on each position gives, in heads, a k k x k k matrix for the k x k window around it;
softmaxed, it mixes the values of that window; every position sums what the windows over it give to it, and a last
layer follows.

Equal to: ``timm.models.volo.OutlookAttention(c, heads)`` at stride 1, channels first. The sum is written as shifted
sums, which export where a fold does not.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, check_channels, check_kernel, fit_groups, full_precision, match, softmax_over, wide
from ._gates import MIXES, Gates
from ._local import near_of

__all__ = ["Outlook"]


@register(
    "Outlook",
    aliases=("OutlookAttention", "OutlookAttn", "Outlook_Attention", "VOLO", "Outlooker"),
    paper="VOLO: Vision Outlooker for Visual Recognition",
    arxiv="2106.13112",
    kind="both",
    oracle="timm OutlookAttention",
    use="fine detail: attention in 3 x 3 windows whose weights need no products of queries and keys",
)
class Outlook(nn.Module):
    """Outlook attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        heads: Number of heads; lowered until it divides the channels.
        kernel_size: k, odd.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, an even kernel, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(self, channels: int, *, heads: int = 8, kernel_size: int = 3, start: str = "paper") -> None:
        super().__init__()
        c = self.channels = check_channels(channels, "Outlook")
        self.heads, self.kernel_size = fit_groups(c, heads, "heads"), check_kernel(kernel_size)
        self.v = nn.Conv2d(c, c, 1, bias=False)
        self.attn = nn.Conv2d(c, self.heads * kernel_size**4, 1)
        self.proj = nn.Conv2d(c, c, 1)
        self.scale = (c // self.heads) ** -0.5
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Mix each window of `x` by its centre."""
        b, c, h, w = x.shape
        k, taps = self.kernel_size, self.kernel_size * self.kernel_size
        p = k // 2
        g, n, d = self.heads, h * w, c // self.heads
        near = near_of(self.v(x), k).reshape(b, g, d * taps, n).transpose(2, 3).reshape(b, g * n, d, taps)
        score = (self.attn(x) * self.scale).reshape(b, g * taps, taps, n)
        with full_precision(x):
            weight = match(softmax_over(wide(score), 2), x)
        weight = weight.reshape(b, g, taps * taps, n).transpose(2, 3).reshape(b, g * n, taps, taps)
        mixed = (weight @ near.transpose(2, 3)).reshape(b, g, n, taps * d).transpose(2, 3)
        y = mixed.reshape(b, g, taps, d * n).transpose(1, 2).reshape(b, taps * c, h, w)
        for side in (0, 1):  # each window gives its taps to the positions that lie there, row by row and in each row
            parts = y.chunk(k, 1)
            moved = [nn.functional.pad(t, (0, 0, i, k - 1 - i) if side == 0 else (i, k - 1 - i)) for i, t in enumerate(parts)]
            y = functools.reduce(torch.add, moved)
        y = self.proj(y[:, :, p : -p or None, p : -p or None])
        return y if self.blend is None else self.blend(x, y)
