"""S^2-MLPv2: Improved Spatial-Shift MLP Architecture for Vision, Yu, Li, Cai, Sun, Li, https://arxiv.org/abs/2108.01072

A layer widens C to 3 C. The first third is shifted by one position right, left, down, up, a quarter of its
channels each; the second third down, up, right, left; the third stays. Split attention: the sum
of all thirds over the positions passes ``softmax(gelu(a W1) W2)`` over the thirds and weighs them. A last layer maps
back to C.

Equal to: the formula. Layers are 1 x 1 convolutions. What is shifted in at the border is the border itself. The sum
over the positions, and the two layers on it, stay in fp32: 160 x 160 activations of 1e3 sum to 2.6e7.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, check_channels, full_precision, match, wide
from ._gates import MIXES, Gates

__all__ = ["S2Attention"]


@register(
    "S2Attention",
    aliases=("S2", "S2MLPv2", "S2Att"),
    paper="S^2-MLPv2: Improved Spatial-Shift MLP Architecture for Vision",
    arxiv="2108.01072",
    kind="both",
    oracle="formula (section 3)",
    use="mixes neighbours by shifts, no spatial kernel; an MLP block, dearer than a gate",
)
class S2Attention(nn.Module):
    """Spatial-shift attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: Fewer than 4 channels, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(self, channels: int, *, start: str = "paper") -> None:
        super().__init__()
        if check_channels(channels, "S2Attention") < 4:
            raise ValueError(f"S2Attention shifts quarters of its channels and needs at least 4, got {channels}")
        self.channels = channels
        self.mlp1 = nn.Conv2d(channels, 3 * channels, 1)
        self.fc1 = nn.Linear(channels, channels, bias=False)
        self.fc2 = nn.Linear(channels, 3 * channels, bias=False)
        self.mlp2 = nn.Conv2d(channels, channels, 1)
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Mix shifted copies of `x`."""
        a, b, c = self.mlp1(x).split(self.channels, 1)
        parts = (self.shift(a, (3, -3, 2, -2)), self.shift(b, (2, -2, 3, -3)), c)
        sums = [wide(p).sum((2, 3), keepdim=True) for p in parts]
        weight = self.split_attention(sums[0] + sums[1] + sums[2])
        a, b, c = (p * match(w, p) for p, w in zip(parts, weight))
        y = self.mlp2(a + b + c)
        return y if self.blend is None else self.blend(x, y)

    def split_attention(self, total: Tensor) -> tuple[Tensor, ...]:
        """Return the weight of each third, (B, C, 1, 1) -> 3 x (B, C, 1, 1)."""
        with full_precision(total):
            w1, w2 = (match(f.weight, total).unsqueeze(2).unsqueeze(3) for f in (self.fc1, self.fc2))
            z = nn.functional.conv2d(nn.functional.gelu(nn.functional.conv2d(total, w1)), w2)
            return z.reshape(-1, 3, self.channels, 1).transpose(1, 2).softmax(2).split(1, 2)

    def shift(self, x: Tensor, way: tuple[int, ...]) -> Tensor:
        """Shift quarters of the channels by one position: 2 down, -2 up, 3 right, -3 left."""
        q = self.channels // 4
        quarters = x.split((q, q, q, self.channels - 3 * q), 1)
        return torch.cat([_step(t, abs(d), d > 0) for t, d in zip(quarters, way)], 1)


def _step(x: Tensor, dim: int, forward: bool) -> Tensor:
    """Move `x` by one along `dim`; the border stays where it was as well."""
    if dim == 2:
        pair = (x[:, :, :1], x[:, :, :-1]) if forward else (x[:, :, 1:], x[:, :, -1:])
    else:
        pair = (x[..., :1], x[..., :-1]) if forward else (x[..., 1:], x[..., -1:])
    return torch.cat(pair, dim)
