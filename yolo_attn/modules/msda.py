"""DilateFormer: Multi-Scale Dilated Transformer for Visual Recognition, Jiao, Tang, Lin, Gao, Ma, Wang, Zheng,
https://arxiv.org/abs/2302.01791

Multi-scale dilated attention: the channels are divided into as many parts as dilations; each part, in heads, attends
to the 3 x 3 positions around it that lie its dilation apart; the parts are concatenated and a 1 x 1 layer follows.
Positions outside the map count as zero.

Equal to: the formula with the authors' layers: no bias but in the last. The default dilations 1, 2, 3, 4 are those of
their code, which divide YOLO's widths; the paper's models have 1, 2, 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, check_channels, check_integer, check_kernel
from ._gates import MIXES, Gates
from ._local import attend_near

__all__ = ["MSDA"]


@register(
    "MSDA",
    aliases=("MultiDilatelocalAttention", "MultiDilateLocalAttention", "DilateAttention", "DilateFormer"),
    paper="DilateFormer: Multi-Scale Dilated Transformer for Visual Recognition",
    arxiv="2302.01791",
    kind="spatial",
    oracle="formula",
    use="local self-attention at four distances; cost grows with H W alone",
)
class MSDA(nn.Module):
    """Multi-scale dilated attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input, a multiple of the number of dilations.
        heads: Number of heads in total; lowered until it divides the channels.
        kernel_size: Size of the neighbourhood, odd.
        dilations: Distances, one for each part.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: Channels that do not divide into the parts, a number below 1, an even kernel, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        kernel_size: int = 3,
        dilations: Sequence[int] = (1, 2, 3, 4),
        start: str = "paper",
    ) -> None:
        super().__init__()
        c = self.channels = check_channels(channels, "MSDA")
        if not isinstance(dilations, (list, tuple)) or not dilations:
            raise ValueError(f"dilations must list at least one number, got {dilations!r}")
        self.dilations = tuple(check_integer(d, "dilations") for d in dilations)
        self.kernel_size, parts = check_kernel(kernel_size), len(self.dilations)
        if c % parts:
            raise ValueError(f"MSDA divides its channels into {parts} parts, which {c} channels do not allow")
        self.heads = math.gcd(c // parts, max(check_integer(heads, "heads") // parts, 1))  # of a part
        self.scale = (c // parts // self.heads) ** -0.5
        self.qkv = nn.Conv2d(c, 3 * c, 1, bias=False)
        self.proj = nn.Conv2d(c, c, 1)
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each position of `x` to those around it at each distance."""
        c, parts = self.channels, len(self.dilations)
        qkv = self.qkv(x)
        q, k, v = qkv[:, :c] * self.scale, qkv[:, c : 2 * c], qkv[:, 2 * c :]
        near = [
            attend_near(a, e, t, self.heads, self.kernel_size, dilation, border=True)
            for dilation, a, e, t in zip(self.dilations, q.chunk(parts, 1), k.chunk(parts, 1), v.chunk(parts, 1))
        ]
        y = self.proj(torch.cat(near, 1))
        return y if self.blend is None else self.blend(x, y)
