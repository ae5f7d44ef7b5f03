"""Scaling Local Self-Attention for Parameter Efficient Visual Backbones (HaloNet), Vaswani, Ramachandran, Srinivas,
Parmar, Hechtman, Shlens, https://arxiv.org/abs/2103.12731

Blocked local self-attention: the map is cut into blocks of b x b; the positions of a block attend to the block and a
halo of h positions around it, in heads; scores are ``q k^T`` over the root of a head's channels plus q times a
learned encoding of the relative position. Positions outside the map are zero.

Equal to: ``timm.layers.HaloAttn(c, block_size=b, halo_size=h)``. Layers have no bias, so a map that b does not
divide, padded by zeros, is the same as one with a wider border.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, attend, check_channels, check_integer, fit_groups
from ._gates import MIXES, Gates
from ._local import RelativePositions, join_windows, windows_of

__all__ = ["Halo"]


@register(
    "Halo",
    aliases=("HaloAttention", "HaloAttn", "HaloNet", "Halo_Attention"),
    paper="Scaling Local Self-Attention for Parameter Efficient Visual Backbones",
    arxiv="2103.12731",
    kind="spatial",
    oracle="timm HaloAttn",
    positional=("window_size halo_size", "window_size halo_size - heads"),  # the third is the channels of a head
    use="local self-attention with relative positions on maps of any size; cost grows with H W alone",
)
class Halo(nn.Module):
    """Halo attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        window_size: b, side of the blocks.
        halo_size: h, how far beyond its block a position sees.
        heads: Number of heads; lowered until it divides the channels.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(
        self, channels: int, *, window_size: int = 8, halo_size: int = 3, heads: int = 8, start: str = "paper"
    ) -> None:
        super().__init__()
        c = self.channels = check_channels(channels, "Halo")
        self.heads = fit_groups(c, heads, "heads")
        self.window_size = check_integer(window_size, "window_size")
        self.halo_size = check_integer(halo_size, "halo_size")
        side = self.side = window_size + 2 * halo_size
        self.q = nn.Conv2d(c, c, 1, bias=False)
        self.kv = nn.Conv2d(c, 2 * c, 1, bias=False)
        self.position = RelativePositions(c // self.heads, side, side)
        self.scale = (c // self.heads) ** -0.5
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each block of `x` to it and its halo."""
        size, sides = (self.window_size, self.window_size), (self.side, self.side)
        q = windows_of(self.q(x), size, self.heads)  # (B, heads blocks, b b, D)
        k, v = windows_of(self.kv(x), size, 2 * self.heads, self.halo_size).chunk(2, 1)
        y = attend(q * self.scale, k, v, self.position(q, size, sides, across=True))
        y = join_windows(y, size, self.heads, x)
        return y if self.blend is None else self.blend(x, y)
