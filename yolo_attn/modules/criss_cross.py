"""CCNet: Criss-Cross Attention for Semantic Segmentation, Huang, Wang, Wei, Huang, Shi, Liu, Huang,
https://arxiv.org/abs/1811.11721

Each position attends to its row and its column (eq. 1, 2), softmax over the H + W - 1 of them; added to the input, as
in the authors' code with a learned weight that starts at 0, so their start is the identity. Applied twice with the
same weights (recurrence R = 2), every position has seen every other.

Equal to: the formula. Row and column both contain the position itself; the sums count it once by taking its own term
away again, where public code writes infinities into a diagonal built for the size at hand. Scores are kept in fp32.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Residual, check_channels, check_integer, full_precision, hidden_channels, identity_start, match, wide
from ._gates import MIXES, Gates

__all__ = ["CrissCross"]


@register(
    "CrissCross",
    aliases=("CrissCrossAttention", "CCAttention", "CCNet", "RCCA"),
    paper="CCNet: Criss-Cross Attention for Semantic Segmentation",
    arxiv="1811.11721",
    kind="spatial",
    oracle="formula (eq. 1, 2)",
    use="global context at H + W instead of H x W scores a position",
)
class CrissCross(nn.Module):
    """Recurrent criss-cross attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: Queries and keys have C // reduction channels.
        recurrence: R.
        start: ``paper`` or ``identity``, which are the same here.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `start`.
    """

    identity: ClassVar[str] = "the authors' start: residual weight 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(self, channels: int, *, reduction: int = 8, recurrence: int = 2, start: str = "paper") -> None:
        super().__init__()
        hidden = hidden_channels(check_channels(channels, "CrissCross"), reduction)
        identity_start(start)
        self.recurrence = check_integer(recurrence, "recurrence")
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = Residual()

    def forward(self, x: Tensor) -> Tensor:
        """Add to each position of `x` what its row and column hold, R times."""
        for _ in range(self.recurrence):
            x = self.gamma(x, self.attend(x))
        return x

    def attend(self, x: Tensor) -> Tensor:
        """Return the attended values, (B, C, H, W) -> (B, C, H, W)."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        with full_precision(x):
            q, k, v = wide(query), wide(key), wide(value)
            row = q.permute(0, 2, 3, 1) @ k.permute(0, 2, 1, 3)  # (B, H, W, W)
            col = q.permute(0, 3, 2, 1) @ k.permute(0, 3, 1, 2)  # (B, W, H, H)
            own = (q * k).sum(1, keepdim=True).permute(0, 2, 3, 1)  # (B, H, W, 1)
            # any common shift cancels; the maximum of both, a + relu(b - a), keeps exp from overflowing
            peak = row.amax(-1, keepdim=True)
            peak = (peak + (col.amax(-1, keepdim=True).transpose(1, 2) - peak).relu()).detach()
            row, col, own = (row - peak).exp(), (col - peak.transpose(1, 2)).exp(), (own - peak).exp()
            total = row.sum(-1, keepdim=True) + col.sum(-1, keepdim=True).transpose(1, 2) - own
            out = row @ v.permute(0, 2, 3, 1) + (col @ v.permute(0, 3, 2, 1)).transpose(1, 2)  # (B, H, W, C)
            out = (out - own * v.permute(0, 2, 3, 1)) / total
        return match(out.permute(0, 3, 1, 2), x)
