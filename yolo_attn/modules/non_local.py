"""Non-local Neural Networks, Wang, Girshick, Gupta, He, https://arxiv.org/abs/1711.07971

The embedded Gaussian form (eq. 3): ``y = softmax(theta(x)^T phi(x)) g(x)`` over all positions, with half the
channels; then ``z = W y + x`` (eq. 6), W followed by a batch norm whose scale starts at 0 (section 4.1): the
paper's own start is the identity.

Equal to: ``timm.layers.NonLocalAttn(c, use_scale=False, rd_ratio=1/2)``.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, attend, check_channels, hidden_channels, identity_start, zero_
from ._gates import MIXES, Gates

__all__ = ["NonLocal"]


@register(
    "NonLocal",
    aliases=("NonLocalBlock", "NonLocalAttn", "NonLocalAttention", "NLBlock"),
    paper="Non-local Neural Networks",
    arxiv="1711.07971",
    kind="spatial",
    oracle="timm NonLocalAttn",
    use="every position sees every other; for small maps, P5 at most; GC is its cheap relative",
)
class NonLocal(nn.Module):
    """Non-local block, (B, C, H, W) -> (B, C, H, W). Time grows with the square of H W.

    Args:
        channels: C, the channels of the input.
        reduction: theta, phi and g have C // reduction channels.
        start: ``paper`` or ``identity``, which are the same here.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: `reduction` below 1, or an unknown `start`.
    """

    identity: ClassVar[str] = "the paper's start: batch norm 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(self, channels: int, *, reduction: int = 2, start: str = "paper") -> None:
        super().__init__()
        hidden = hidden_channels(check_channels(channels, "NonLocal"), reduction)
        identity_start(start)
        self.theta = nn.Conv2d(channels, hidden, 1)
        self.phi = nn.Conv2d(channels, hidden, 1)
        self.g = nn.Conv2d(channels, hidden, 1)
        self.out = nn.Conv2d(hidden, channels, 1)
        self.norm = BatchNorm(channels)
        zero_(self.norm)

    def forward(self, x: Tensor) -> Tensor:
        """Add to each position of `x` what all others hold."""
        h, w = x.shape[2:]
        theta, phi, g = (f(x) for f in (self.theta, self.phi, self.g))
        y = attend(*(t.reshape(-1, t.shape[1], h * w).transpose(1, 2) for t in (theta, phi, g)))
        return x + self.norm(self.out(y.transpose(1, 2).reshape(-1, g.shape[1], h, w)))
