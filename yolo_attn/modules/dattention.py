"""Vision Transformer with Deformable Attention, Xia, Pan, Song, Li, Huang, https://arxiv.org/abs/2201.00520

Deformable attention: queries tell, by a small network of depthwise convolution, layer norm, GELU and 1 x 1 layer, how
far each of a grid of reference points is moved; keys and values are read from the input at the moved points,
bilinearly; every query attends to all of them, in heads. Channels are divided into groups that move apart.

Equal to: the formula with the authors' layers, an offset being ``factor * tanh`` halves of the reference grid's step.
Where they add a bias looked up in a table of relative positions, a depthwise 3 x 3 convolution of the queries is
added to the result, which is an option of theirs (dwc_pe) and needs no fixed size. Points are read by
``grid_sample``, opset 16 in ONNX; on a GPU under deterministic algorithms, which refuse its backward, by indices.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    Blend,
    LayerNorm,
    attend,
    check_channels,
    check_integer,
    check_kernel,
    fit_groups,
    full_precision,
    wide,
)
from ._gates import MIXES, Gates
from ._local import heads_of, sample

__all__ = ["DAttention"]


@register(
    "DAttention",
    aliases=("DAT", "DAttentionBaseline", "DeformableAttention", "DAttn"),
    paper="Vision Transformer with Deformable Attention",
    arxiv="2201.00520",
    kind="spatial",
    oracle="formula",
    positional=("- heads groups - - stride factor",),  # DAttention(channel, q_size, n_heads, n_groups, drop, drop, ...)
    use="self-attention whose keys move to where it matters; for small maps, or with stride",
)
class DAttention(nn.Module):
    """Deformable attention, (B, C, H, W) -> (B, C, H, W). Time grows with the square of H W over stride^2.

    Args:
        channels: C, the channels of the input.
        heads: Number of heads; lowered until it divides the channels.
        groups: Number of sets of points; lowered until it divides the heads.
        stride: Distance of the reference points.
        factor: How far a point moves at most, in halves of that distance.
        kernel_size: Kernel size of the depthwise convolution before the offsets, odd.
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
        groups: int = 4,
        stride: int = 1,
        factor: int = 4,
        kernel_size: int = 3,
        start: str = "paper",
    ) -> None:
        super().__init__()
        c, k = check_channels(channels, "DAttention"), check_kernel(kernel_size)
        self.heads = fit_groups(c, heads, "heads")
        self.groups = math.gcd(self.heads, fit_groups(c, groups))
        self.stride, self.factor = check_integer(stride, "stride"), check_integer(factor, "factor")
        part = c // self.groups
        self.offset = nn.Sequential(
            nn.Conv2d(part, part, k, self.stride, k // 2, groups=part),
            LayerNorm(part),
            nn.GELU(),
            nn.Conv2d(part, 2, 1, bias=False),
        )
        self.proj_q = nn.Conv2d(c, c, 1)
        self.proj_k = nn.Conv2d(c, c, 1)
        self.proj_v = nn.Conv2d(c, c, 1)
        self.proj_out = nn.Conv2d(c, c, 1)
        self.position = nn.Conv2d(c, c, 3, padding=1, groups=c)
        self.scale = (c // self.heads) ** -0.5
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each position of `x` to the moved points."""
        b, c, h, w = x.shape
        query = self.proj_q(x)
        parts = zip(x.chunk(self.groups, 1), query.chunk(self.groups, 1))
        moved = torch.cat([self.read(one, self.offset(q)) for one, q in parts], 1)
        k, v = (heads_of(f(moved), self.heads) for f in (self.proj_k, self.proj_v))
        y = attend(heads_of(query, self.heads) * self.scale, k, v).transpose(2, 3).reshape(b, c, h, w)
        y = self.proj_out(y + self.position(query))
        return y if self.blend is None else self.blend(x, y)

    def read(self, x: Tensor, offset: Tensor) -> Tensor:
        """Read `x` at the reference points moved by `offset`, (B, 2, h, w): along the height, along the width."""
        h, w = offset.shape[2:]
        with full_precision(x):
            move = wide(offset).tanh() * (self.factor / 2)
            grid = [torch.arange(n, device=x.device, dtype=move.dtype) + 0.5 for n in (h, w)]
            rows = (grid[0].unsqueeze(1) + move[:, :1]) * (x.shape[2] / h) - 0.5
            columns = (grid[1] + move[:, 1:]) * (x.shape[3] / w) - 0.5
        return sample(x, rows.squeeze(1), columns.squeeze(1))
