"""BiFormer: Vision Transformer with Bi-Level Routing Attention, Zhu, Wang, Ke, Zhang, Lau,
https://arxiv.org/abs/2303.08810

The map is cut into S x S regions (eq. 3). The means of queries and keys of each region give the affinity of regions
(eq. 4); each region is routed to the k of them that it is closest to (eq. 5), and its positions attend to all
positions of those (eq. 6, 7). A depthwise convolution of the values is added (LCE), and a 1 x 1 convolution ends it.

Equal to: the formula with the authors' layers; scores are divided by the root of C, not of a head's channels, as
theirs are. A map that S does not divide is padded, as theirs is, but what is padded neither is attended to nor counts
in a region's mean, and a region without a position is never chosen before one that has some. The choice passes no
gradient.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    Blend,
    attend,
    check_channels,
    check_integer,
    check_kernel,
    fit_groups,
    full_precision,
    match,
    traced,
    wide,
)
from ._gates import MIXES, Gates
from ._local import join_windows, parts_of, windows_of

__all__ = ["BiLevelRoutingAttention"]


@register(
    "BiLevelRoutingAttention",
    aliases=("BRA", "BiFormer", "BiFormerAttention", "BiLevelRoutingAttention_nchw", "Biformer", "biformer"),
    paper="BiFormer: Vision Transformer with Bi-Level Routing Attention",
    arxiv="2303.08810",
    kind="spatial",
    oracle="formula (eq. 3-7)",
    use="self-attention on larger maps: each region looks at the 4 of 49 that matter to it",
)
class BiLevelRoutingAttention(nn.Module):
    """Bi-level routing attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        heads: Number of heads; lowered until it divides the channels.
        windows: S, regions along each side.
        topk: k, number of regions that each is routed to, at most all of them.
        kernel_size: Kernel size of the depthwise convolution of the values, odd.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, an even kernel, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        windows: int = 7,
        topk: int = 4,
        kernel_size: int = 3,
        start: str = "paper",
    ) -> None:
        super().__init__()
        c = self.channels = check_channels(channels, "BiLevelRoutingAttention")
        self.heads = fit_groups(c, heads, "heads")
        self.windows = check_integer(windows, "windows")
        self.topk = min(check_integer(topk, "topk"), windows * windows)
        self.qkv = nn.Conv2d(c, 3 * c, 1)
        self.lepe = nn.Conv2d(c, c, check_kernel(kernel_size), padding=kernel_size // 2, groups=c)
        self.out = nn.Conv2d(c, c, 1)
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each position of `x` to the regions that its own is routed to."""
        b, c, h, w = x.shape
        s, heads, d = self.windows, self.heads, c // self.heads
        size, regions = (parts_of(h, s), parts_of(w, s)), (s, s)
        qkv = self.qkv(x)
        value = qkv[:, 2 * c :]
        q, key, v = windows_of(qkv, size, 3 * heads, count=regions).chunk(3, 1)  # (B, heads S S, n, D)
        q = q * self.channels**-0.5  # a traced size would be of fp32
        real = windows_of(torch.ones_like(x[:1, :1]), size, 1, count=regions)  # (1, S S, n, 1)
        chosen = self.route(q, key, real).unsqueeze(1)  # (B, 1, S S k, S S), a 1 a row
        key, v = (
            (match(chosen, t) @ t.reshape(b, heads, s * s, -1)).reshape(b, heads * s * s, -1, d) for t in (key, v)
        )
        inside = (match(chosen, real) @ real.reshape(1, 1, s * s, -1)).reshape(b, s * s, 1, -1)
        y = attend(q, key, v, keep=torch.cat([inside] * heads, 1))  # RKNN repeats in another order than repeat
        y = join_windows(y, size, heads, x, count=regions)
        y = self.out(y + self.lepe(value))
        return y if self.blend is None else self.blend(x, y)

    @torch.no_grad()
    def route(self, query: Tensor, key: Tensor, real: Tensor) -> Tensor:
        """Return which regions each is routed to, a 1 in each of S S k rows over S S columns."""
        b, s = query.shape[0], self.windows * self.windows
        with full_precision(query):
            count = wide(real).sum(2)  # (1, S S, 1)
            q, key = (wide(t).sum(2).reshape(b, self.heads, s, -1).transpose(1, 2) for t in (query, key))
            q, key = (t.reshape(b, s, -1) / count.clamp(min=1) for t in (q, key))
            affinity = q @ key.transpose(1, 2)
            holds = count.transpose(1, 2).clamp(max=1)  # 1 where a region has a position
            affinity = (affinity - affinity.amin(2, keepdim=True)) * holds + (holds - 1)  # at least 0, others -1
        if traced():
            place = torch.arange(self.topk, device=affinity.device, dtype=affinity.dtype).reshape(1, 1, self.topk, 1)
            hot = (1 - (rank_of(affinity).unsqueeze(2) - place).abs()).clamp(min=0)
        else:
            index = affinity.topk(self.topk, -1).indices
            hot = index.unsqueeze(3) == torch.arange(s, device=index.device)
        return hot.reshape(b, -1, s).to(affinity.dtype)


def rank_of(score: Tensor) -> Tensor:
    """Return how many of a row come before each value, the greatest first, (B, L, M) -> (B, L, M).

    For graphs that are exported: many runtimes have neither ``TopK`` nor comparisons. Of equals the first comes first.
    """
    b, rows, m = score.shape
    greater = (score.reshape(b, rows, 1, m) - score.reshape(b, rows, m, 1)).clamp(0, 1).ceil()  # 1 where it is
    later = greater * torch.ones_like(greater[:1, :1]).triu(1)  # of those behind; among those before, equals count too
    place = torch.arange(m, device=score.device, dtype=score.dtype)
    return later.sum(3) + (place - later.sum(2))
