"""Gated Channel Transformation for Visual Recognition, Yang, Zhu, Wu, Yang, https://arxiv.org/abs/1909.11519

Global context embedding: ``s = alpha sqrt(sum x^2 + eps)`` over the positions. Channel normalisation: s divided by the
root of its mean square over the channels. Gating adaptation: ``x (1 + tanh(gamma s + beta))``. With alpha 1 and gamma,
beta 0 at the start, the paper's own start is the identity.

Equal to: the formula, with epsilon beside the mean of the squares, as in the authors' code, where the paper's has it
beside their sum. Sums of squares are kept in fp32: those of activations around 1e3 overflow fp16.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Affine, check_channels, check_number, identity_start, match, wide
from ._gates import Gates, over_input

__all__ = ["GCT"]


@register(
    "GCT",
    aliases=("GatedChannelTransformation", "GatedChannelTransform", "GCTAttention"),
    paper="Gated Channel Transformation for Visual Recognition",
    arxiv="1909.11519",
    kind="channel",
    oracle="formula (section 3)",
    use="3 C weights, starts as the identity by design; channels compete or help one another",
)
class GCT(nn.Module):
    """Gated channel transformation, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input; adds 3 C weights.
        eps: epsilon under both square roots.
        start: ``paper`` or ``identity``, which are the same here.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: `eps` is not positive, or an unknown `start`.
    """

    identity: ClassVar[str] = "the paper's start: 1 + tanh(0)"
    gates: ClassVar[Gates] = over_input("channel", ends=(0.0, 2.0))

    def __init__(self, channels: int, *, eps: float = 1e-5, start: str = "paper") -> None:
        super().__init__()
        check_channels(channels, "GCT")
        identity_start(start)
        self.eps = check_number(eps, "eps", 0, above=True)
        self.embed = Affine(channels, weight=1.0, bias=None)
        self.tune = Affine(channels, weight=0.0, bias=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        z = wide(x)
        s = self.embed(((z * z).sum((2, 3), keepdim=True) + self.eps).sqrt())
        s = s / ((s * s).mean(1, keepdim=True) + self.eps).sqrt()
        return x * match(1 + self.tune(s).tanh(), x)
