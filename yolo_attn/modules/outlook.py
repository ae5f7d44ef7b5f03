"""VOLO: Vision Outlooker for Visual Recognition, Yuan, Hou, Jiang, Feng, Yan, https://arxiv.org/abs/2106.13112

Outlook attention: a linear layer on each position gives, in heads, a k k x k k matrix for the k x k window around it;
softmaxed, it mixes the values of that window; every position sums what the windows over it give to it, and a last
layer follows.

Equal to: ``timm.models.volo.OutlookAttention(c, heads)`` at stride 1, channels first. The sum is written as shifted
sums, which export where a fold does not.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, check_channels, check_kernel, fit_groups, full_precision, match, wide
from ._gates import MIXES, Gates

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
        near = nn.functional.unfold(self.v(x), k, padding=p).reshape(b, self.heads, c // self.heads, taps, h * w)
        score = (self.attn(x) * self.scale).reshape(b, self.heads, taps, taps, h * w)
        with full_precision(x):
            weight = match(wide(score).softmax(3), x)
        mixed = weight.permute(0, 1, 4, 2, 3) @ near.permute(0, 1, 4, 3, 2)  # (B, heads, H W, k k, D)
        mixed = mixed.permute(0, 3, 1, 4, 2).reshape(b, taps * c, h, w)
        total = None
        for tap in range(taps):  # each window gives its tap to the position that lies there
            dy, dx = tap // k, tap % k
            moved = nn.functional.pad(mixed[:, tap * c : tap * c + c], (dx, k - 1 - dx, dy, k - 1 - dy))
            total = moved if total is None else total + moved
        y = self.proj(total[:, :, p : -p or None, p : -p or None])  # type: ignore[index]  # k is at least 1
        return y if self.blend is None else self.blend(x, y)
