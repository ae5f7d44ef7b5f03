"""Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional Networks, Li, Hu, Yang,
https://arxiv.org/abs/1905.09646

In each of G groups: the mean vector over the positions (eq. 1), its dot product with each position (eq. 2), normalised
over the positions (eq. 3), scaled and shifted by one pair of numbers for each group (eq. 4), sigmoid, times the group
(eq. 5). The scale starts at 0 and the shift at 1.

Equal to: the formula, with ``sqrt(var + eps)`` for ``std + eps`` in eq. 3, which keeps the gradient finite where a map
is constant, and the variance of eq. 3 (over m, not m - 1), which exists on a map of 1 x 1. G is lowered to the greatest
common divisor with C. The dot products are formed in fp32.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    Affine,
    Gate,
    channel_norm,
    check_channels,
    check_number,
    fit_groups,
    identity_start,
    match,
    spatial_mean,
    traced,
    wide,
    zero_,
)
from ._gates import Gates, over_input

__all__ = ["SGE"]


@register(
    "SGE",
    aliases=("SpatialGroupEnhance", "SGEAttention"),
    paper="Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional Networks",
    arxiv="1905.09646",
    kind="spatial",
    oracle="formula (eq. 1-5)",
    use="one spatial map for each group for 2 G numbers in all; sharpens where a group's feature is",
    positional=("groups", "groups -"),
)
class SGE(nn.Module):
    """Spatial group-wise enhance, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        groups: G, lowered until it divides C; adds 2 G weights.
        eps: epsilon of eq. 3.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: `groups` below 1, `eps` not positive, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "scale and shift 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("value")

    def __init__(
        self, channels: int, *, groups: int = 64, eps: float = 1e-5, gate: str = "sigmoid", start: str = "paper"
    ) -> None:
        super().__init__()
        self.groups = fit_groups(check_channels(channels, "SGE"), groups)
        self.width = channels // self.groups
        self.eps = check_number(eps, "eps", 0, above=True)
        self.affine = Affine(self.groups, weight=0.0, bias=1.0)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.affine)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the positions of each group of `x`."""
        if traced():
            return self.by_convolution(x)
        g = x.reshape(-1, self.groups, self.width, x.shape[2], x.shape[3])
        z = wide(g)
        t = (z * z.mean((3, 4), keepdim=True)).sum(2)  # (B, G, H, W)
        t = t - t.mean((2, 3), keepdim=True)
        t = t / ((t * t).mean((2, 3), keepdim=True) + self.eps).sqrt()
        return (g * match(self.gate(self.affine(t)), x).unsqueeze(2)).reshape(x.shape)

    def by_convolution(self, x: Tensor) -> Tensor:
        """Do the same for export: sum a group, and spread its gate, by grouped convolutions of ones, at rank 4."""
        one = torch.ones_like(self.affine.weight).reshape(self.groups, 1, 1, 1)
        t = nn.functional.conv2d(x * spatial_mean(x), torch.cat([one] * self.width, 1), groups=self.groups)
        scale, shift = self.affine.weight.flatten(), self.affine.bias.flatten()  # type: ignore[union-attr]  # it has one
        gate = self.gate(channel_norm(t, scale, shift, self.eps))
        return x * nn.functional.conv2d(gate, torch.cat([one] * self.width, 1).reshape(-1, 1, 1, 1), groups=self.groups)

    def extra_repr(self) -> str:
        """Show G."""
        return f"groups={self.groups}"
