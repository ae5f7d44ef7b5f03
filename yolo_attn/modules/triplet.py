"""Rotate to Attend: Convolutional Triplet Attention Module, Misra, Nalamada, Arasanipalai, Hou,
https://arxiv.org/abs/2010.03045

Three branches, for the pairs (C, W), (C, H), (H, W): the maximum and the mean over the third axis (Z-pool), a
7 x 7 convolution to one channel, batch norm, sigmoid; the output is the mean of the three products.

Equal to: the formula. The axes are permuted on the pooled maps, not on the input, and the three gates are averaged
before the one product with the input: the same sum, in one pass.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, Gate, check_kernel, identity_start, mean, zero_
from ._gates import Gates, over_input

__all__ = ["TripletAttention"]


@register(
    "TripletAttention",
    aliases=("Triplet", "TripletAtt"),
    paper="Rotate to Attend: Convolutional Triplet Attention Module",
    arxiv="2010.03045",
    kind="both",
    oracle="formula (section 3.2)",
    use="channel-position interaction for 300 weights, whatever the width",
    positional=("-",),
)
class TripletAttention(nn.Module):
    """Triplet attention, (B, C, H, W) -> (B, C, H, W); the same 300 parameters for any C.

    Args:
        kernel_size: k of the three convolutions, odd.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        ValueError: `kernel_size` is even or below 1, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "batch norms 0, gates 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("value")

    def __init__(self, *, kernel_size: int = 7, gate: str = "sigmoid", start: str = "paper") -> None:
        super().__init__()
        check_kernel(kernel_size)
        self.cw, self.hc, self.hw = (
            nn.Sequential(nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False), BatchNorm(1))
            for _ in range(3)
        )
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.cw[1], self.hc[1], self.hw[1])

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` by its three pairs of axes."""
        cw = self.cw(z_pool(x, 2).transpose(1, 2)).transpose(1, 2)  # (B, 2, C, W) -> (B, C, 1, W)
        hc = self.hc(z_pool(x, 3).transpose(1, 3)).transpose(1, 3)  # (B, 2, H, C) -> (B, C, H, 1)
        hw = self.hw(z_pool(x, 1))  # (B, 2, H, W) -> (B, 1, H, W)
        return x * ((self.gate(cw) + self.gate(hc) + self.gate(hw)) / 3)


def z_pool(x: Tensor, dim: int) -> Tensor:
    """Return maximum and mean over `dim`, which has length 2 afterwards (Z-pool)."""
    return torch.cat((x.amax(dim, keepdim=True), mean(x, dim)), dim)
