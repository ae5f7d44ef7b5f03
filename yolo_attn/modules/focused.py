"""FLatten Transformer: Vision Transformer using Focused Linear Attention, Han, Pan, Han, Song, Huang,
https://arxiv.org/abs/2308.00442

Linear attention ``phi(q) (phi(k)^T v)``, divided by the sum of its weights, with the focused function: a ReLU, then
each value to the power p with the length of the vector kept, which draws queries and keys towards their nearest axis.
A depthwise convolution of the values is added, and a 1 x 1 layer ends it.

Equal to: the formula with the authors' layers: q and k are divided by a learned scale for each channel, softplus of a
number that starts at 0, and 1e-6 keeps ReLU above zero. Their depthwise weights are shared by the heads, and a
position encoding of the size at hand is added to the keys; here each channel has its own kernel, and the convolution
alone tells positions. Everything between the layers is in fp32.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Affine, Blend, check_channels, check_integer, check_kernel, fit_groups, full_precision, match, wide
from ._gates import MIXES, Gates
from ._local import heads_of

__all__ = ["FocusedLinearAttention"]


@register(
    "FocusedLinearAttention",
    aliases=("FLA", "FLatten", "FLattenAttention", "FocusedLinear", "FLAttention"),
    paper="FLatten Transformer: Vision Transformer using Focused Linear Attention",
    arxiv="2308.00442",
    kind="spatial",
    oracle="formula",
    positional=("- heads",),  # FocusedLinearAttention(dim, window_size or num_patches, num_heads)
    use="global self-attention at a cost that grows with H W alone; also for P3",
)
class FocusedLinearAttention(nn.Module):
    """Focused linear attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        heads: Number of heads; lowered until it divides the channels.
        factor: p, the power.
        kernel_size: Kernel size of the depthwise convolution of the values, odd.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, an even kernel, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(
        self, channels: int, *, heads: int = 8, factor: int = 3, kernel_size: int = 5, start: str = "paper"
    ) -> None:
        super().__init__()
        c = self.channels = check_channels(channels, "FocusedLinearAttention")
        self.heads, self.factor = fit_groups(c, heads, "heads"), check_integer(factor, "factor")
        self.qkv = nn.Conv2d(c, 3 * c, 1)
        self.scale = Affine(c, 0.0, None)
        self.dwc = nn.Conv2d(c, c, check_kernel(kernel_size), padding=kernel_size // 2, groups=c)
        self.proj = nn.Conv2d(c, c, 1)
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Give each position of `x` what all others hold."""
        b, c, h, w = x.shape
        qkv = self.qkv(x)
        value = qkv[:, 2 * c :]
        with full_precision(x):
            scale = nn.functional.softplus(wide(self.scale.weight))
            q, k = (heads_of(self.focus(wide(t), scale), self.heads) for t in (qkv[:, :c], qkv[:, c : 2 * c]))
            v = heads_of(wide(value), self.heads)
            # means in place of sums, of which the quotient is the same, so that long maps lose no digits
            z = q @ k.mean(2, keepdim=True).transpose(2, 3) + 1e-6  # (B, heads, H W, 1)
            y = q @ (k.transpose(2, 3) @ (v / (h * w))) / z
            y = match(y.transpose(2, 3).reshape(b, c, h, w), x)
        y = self.proj(y + self.dwc(value))
        return y if self.blend is None else self.blend(x, y)

    def focus(self, x: Tensor, scale: Tensor) -> Tensor:
        """Return the focused function of queries or keys; lengths are those over all channels."""
        x = (x.relu() + 1e-6) / scale
        # divided by the greatest first: a cube of 1e13 overflows fp32, and the direction is the same
        y = (x / x.amax(1, keepdim=True)) ** self.factor
        return y * (length(x) / length(y))


def length(x: Tensor) -> Tensor:
    """Return the length of each position's vector, (B, C, H, W) -> (B, 1, H, W)."""
    return (x * x).sum(1, keepdim=True).sqrt()
