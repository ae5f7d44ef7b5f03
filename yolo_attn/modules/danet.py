"""Dual Attention Network for Scene Segmentation, Fu, Liu, Tian, Li, Bao, Fang, Lu, https://arxiv.org/abs/1809.02983

Position attention (eq. 1, 2): a softmax over all positions of query-key products, added to the input with a weight
alpha that starts at 0. Channel attention (eq. 3, 4): a softmax over the channels of ``x x^T``, added with a weight
beta that starts at 0. Both results are summed, which gives 2 x at the start; the identity start counts x once.

Equal to: the formula. The authors' code takes the channel softmax of the largest score minus each, which favours the
least alike channels; eq. 3 has the scores themselves. The 3 x 3 convolutions around the two modules belong to the
segmentation head: give them rows of their own. Scores are kept in fp32.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Residual, attend, check_channels, full_precision, hidden_channels, identity_start, match, wide
from ._gates import MIXES, Gates

__all__ = ["DualAttention"]


@register(
    "DualAttention",
    aliases=("DANet", "DAModule", "DANetAttention", "DANAttention"),
    paper="Dual Attention Network for Scene Segmentation",
    arxiv="1809.02983",
    kind="both",
    oracle="formula (eq. 1-4)",
    use="full attention over positions and over channels; for small maps, P5 at most",
    positional=("reduction?",),
)
class DualAttention(nn.Module):
    """Dual attention, (B, C, H, W) -> (B, C, H, W). Time grows with the square of H W.

    Args:
        channels: C, the channels of the input.
        reduction: Queries and keys have C // reduction channels.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: `reduction` below 1, or an unknown `start`.
    """

    identity: ClassVar[str] = "the paper's weights 0, x counted once"
    gates: ClassVar[Gates] = MIXES

    def __init__(self, channels: int, *, reduction: int = 8, start: str = "paper") -> None:
        super().__init__()
        hidden = hidden_channels(check_channels(channels, "DualAttention"), reduction)
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.alpha = Residual()
        self.beta = Residual()
        self.once = identity_start(start)

    def forward(self, x: Tensor) -> Tensor:
        """Add to `x` what its positions and its channels have in common."""
        c, h, w = x.shape[1:]
        q, k, v = (t.reshape(-1, t.shape[1], h * w).transpose(1, 2) for t in (self.query(x), self.key(x), self.value(x)))
        position = attend(q, k, v).transpose(1, 2).reshape(-1, c, h, w)
        z = x.reshape(-1, c, h * w)
        with full_precision(x):
            # z z^T is symmetric, and transposed no runtime takes it for the attention of z to itself: OpenVINO 2026.4
            # does so without, and is wrong where shapes are dynamic
            weight = (wide(z) @ wide(z).transpose(1, 2)).transpose(1, 2).softmax(-1)  # (B, C, C)
        channel = (match(weight, x) @ z).reshape(-1, c, h, w)
        y = self.beta(self.alpha(x, position), channel)
        return y if self.once else y + x
