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
from ._base import Blend, attend, check_channels, check_integer, check_kernel, fit_groups, full_precision, wide
from ._gates import MIXES, Gates
from ._local import pad_to, parts_of

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
        s, heads, k = self.windows, self.heads, self.topk
        qkv = self.qkv(x)
        value = qkv[:, 2 * c :]
        q, key, v = (self.regions(t) for t in (qkv[:, :c] * c**-0.5, qkv[:, c : 2 * c], value))  # (B, S S, n, C)
        real = self.regions(torch.ones_like(x[:1, :1]))  # (1, S S, n, 1)
        n = q.shape[2]
        chosen = self.route(q, key, real)  # (B, S S k, S S), a 1 a row
        several = (b, s * s, k * n, heads, c // heads)
        key, v = ((chosen.to(t.dtype) @ t.reshape(b, s * s, n * c)).reshape(several).transpose(2, 3) for t in (key, v))
        mask = (chosen.to(real.dtype) @ real.reshape(1, s * s, n)).reshape(b, s * s, 1, 1, k * n)
        bias = torch.zeros_like(mask).masked_fill(mask == 0, -torch.inf)
        y = attend(q.reshape(b, s * s, n, heads, c // heads).transpose(2, 3), key, v, bias)  # (B, S S, heads, n, D)
        high, broad = parts_of(h, s), parts_of(w, s)
        y = y.transpose(2, 3).reshape(b, s, s, high, broad, c).permute(0, 5, 1, 3, 2, 4)
        y = y.reshape(b, c, s * high, s * broad)[:, :, :h, :w]
        y = self.out(y + self.lepe(value))
        return y if self.blend is None else self.blend(x, y)

    def regions(self, x: Tensor) -> Tensor:
        """Cut a map into regions, (B, C, H, W) -> (B, S S, n, C)."""
        s, x = self.windows, pad_to(x, self.windows)
        b, c, h, w = x.shape
        x = x.reshape(b, c, s, h // s, s, w // s).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(b, s * s, (h // s) * (w // s), c)

    @torch.no_grad()
    def route(self, query: Tensor, key: Tensor, real: Tensor) -> Tensor:
        """Return which regions each is routed to, a 1 in each of S S k rows over S S columns."""
        with full_precision(query):
            count = wide(real).sum(2)  # (1, S S, 1)
            q, key = (wide(t).sum(2) / count.clamp(min=1) for t in (query, key))
            affinity = (q @ key.transpose(1, 2)).masked_fill(count.transpose(1, 2) == 0, -torch.inf)
        index = affinity.topk(self.topk, -1).indices.flatten(1)
        return index.unsqueeze(2) == torch.arange(affinity.shape[2], device=index.device)
