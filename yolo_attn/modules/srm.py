"""SRM: A Style-based Recalibration Module for Convolutional Neural Networks, Lee, Kim, Nam,
https://arxiv.org/abs/1903.10829

Style pooling (eq. 1-3): mean and standard deviation of each channel over the positions. Style integration (eq. 4-6):
two weights for each channel, batch norm, sigmoid; each channel times its weight. The two weights start at 0.

Equal to: the formula. The variance has 1 / (H W) as eq. 2, so it exists for a single position too; 1e-5 is added to
it, as in the authors' code. Both are formed in fp32.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, Gate, check_channels, check_number, full_precision, identity_start, match, wide, zero_
from ._gates import Gates, over_input

__all__ = ["SRM"]


@register(
    "SRM",
    aliases=("SRMLayer", "SRMAttention", "StyleRecalibration"),
    paper="SRM: A Style-based Recalibration Module for Convolutional Neural Networks",
    arxiv="1903.10829",
    kind="channel",
    oracle="formula (eq. 1-6)",
    use="ECA's price: four weights a channel; looks at contrast as well as at the mean",
)
class SRM(nn.Module):
    """Style-based recalibration, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        eps: Added to the variance.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: `eps` not positive, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "batch norm 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("channel")

    def __init__(self, channels: int, *, eps: float = 1e-5, gate: str = "sigmoid", start: str = "paper") -> None:
        super().__init__()
        c = check_channels(channels, "SRM")
        self.eps = check_number(eps, "eps", 0, above=True)
        self.cfc = nn.Conv2d(c, c, (1, 2), groups=c, bias=False)
        self.norm = BatchNorm(c)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.norm)
        else:
            zero_(self.cfc)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        with full_precision(x):
            z = wide(x)
            mu = z.mean((2, 3), keepdim=True)
            d = z - mu
            sigma = ((d * d).mean((2, 3), keepdim=True) + self.eps).sqrt()
            # Also in fp32 under autocast: the convolution starts at zero, and a batch norm divides by the root of its eps.
            score = self.norm(self.cfc(match(torch.cat((mu, sigma), 3), self.cfc.weight)))
        return x * match(self.gate(score), x)
