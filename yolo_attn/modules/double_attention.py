"""A^2-Nets: Double Attention Networks, Chen, Kalantidis, Li, Yan, Feng, https://arxiv.org/abs/1810.11579

Gather: ``G = A softmax(B)^T``, second-order pooling of the feature maps A by the attention maps B over the
positions. Distribute: ``Z = G softmax(V)``, each position mixing the gathered vectors by its own softmax
over them. A 1 x 1 convolution widens Z to C, and it is added to the input.

Equal to: the formula. Public copies often drop the addition; ``residual=False`` does so.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, check_channels, check_flag, hidden_channels, identity_start, match, softmax_over, zero_
from ._gates import MIXES, Gates

__all__ = ["DoubleAttention"]


@register(
    "DoubleAttention",
    aliases=("A2", "A2Attention", "A2Atttention", "DoubleAttentionLayer"),
    paper="A^2-Nets: Double Attention Networks",
    arxiv="1810.11579",
    kind="both",
    oracle="formula (section 3)",
    use="global context at linear cost; one block deep in the backbone goes far",
    positional=("reduction", "width/reduction - -"),
)
class DoubleAttention(nn.Module):
    """Double attention block, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: The paper's m and n are both C // reduction.
        residual: Whether the result is added to the input.
        start: ``paper`` or ``identity``; without residual the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: `reduction` below 1, or an unknown `start`.
    """

    identity: ClassVar[str] = "residual, last layer 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(self, channels: int, *, reduction: int = 4, residual: bool = True, start: str = "paper") -> None:
        super().__init__()
        hidden = hidden_channels(check_channels(channels, "DoubleAttention"), reduction)
        self.residual = check_flag(residual, "residual")
        self.a = nn.Conv2d(channels, hidden, 1)
        self.b = nn.Conv2d(channels, hidden, 1)
        self.v = nn.Conv2d(channels, hidden, 1)
        self.out = nn.Conv2d(hidden, channels, 1)
        self.blend = None if residual else Blend.when(start)
        if identity_start(start) and residual:
            zero_(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """Gather global features of `x` and distribute them to its positions."""
        h, w = x.shape[2:]
        a, b, v = (t.reshape(-1, t.shape[1], h * w) for t in (self.a(x), self.b(x), self.v(x)))
        gather = match(b.softmax(2), x)  # (B, n, HW)
        pooled = a @ gather.transpose(1, 2)  # (B, m, n)
        z = pooled @ match(softmax_over(v, 1), x)  # (B, m, HW)
        z = self.out(z.reshape(-1, z.shape[1], h, w))
        if self.residual:
            return x + z
        return z if self.blend is None else self.blend(x, z)
