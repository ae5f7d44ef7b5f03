"""SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention, Si, Xu, Zhu, Zhang, Dong, Chen, Li,
https://arxiv.org/abs/2407.05128

Spatial half (SMSA): the means of each row and of each column; their channels in four groups, each under a depthwise
convolution of its own length (3, 5, 7, 9), shared by rows and columns; group norm over the four, sigmoid; both gates
weigh the input. Channel half (PCSA): the result, averaged into cells of 7 x 7 and group-normed, is query, key and
value by one weight a channel each; in heads, channels attend to channels; the mean of that over the cells, through a
sigmoid, weighs the channels.

Equal to: the formula with the authors' layers. Their pooling drops what is left of a map beyond whole cells and fails
below one; here the last cells are averaged over what they hold. The second version of the paper has one head
(``heads: 1``), its code's usual number is 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    Affine,
    Gate,
    GroupNorm,
    attend,
    check_channels,
    check_integer,
    check_kernels,
    fit_groups,
    identity_start,
    match,
    mean,
    spatial_mean,
    zero_,
)
from ._gates import Gates, layer
from ._local import heads_of

__all__ = ["SCSA"]


@register(
    "SCSA",
    aliases=("SCSAttention", "SCSA_Attention"),
    paper="SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention",
    arxiv="2407.05128",
    kind="both",
    oracle="formula",
    use="strips of several lengths, then attention among channels; about 20 weights a channel",
)
class SCSA(nn.Module):
    """Spatial and channel synergistic attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input, a multiple of the number of kernels.
        heads: Number of heads; lowered until it divides the channels.
        window_size: Side of the cells.
        kernel_sizes: Lengths of the strips, odd, at least two, one for each group.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: Channels that do not divide into the groups, a number below 1, an even kernel or fewer than two,
            or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "norms and values 0, gates 2 * sigmoid"
    gates: ClassVar[Gates] = layer("value", name="rows"), layer("value", name="columns", call=1), layer("channel", call=2)

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        window_size: int = 7,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        c, kernels = check_channels(channels, "SCSA"), check_kernels(kernel_sizes)
        groups = len(kernels)
        if c % groups:
            raise ValueError(f"SCSA divides its channels into {groups} groups, which {c} channels do not allow")
        self.heads, self.window_size = fit_groups(c, heads, "heads"), check_integer(window_size, "window_size")
        part = c // groups
        self.strips = nn.ModuleList(nn.Conv2d(part, part, (k, 1), padding=(k // 2, 0), groups=part) for k in kernels)
        self.norm_h = GroupNorm(groups, c)
        self.norm_w = GroupNorm(groups, c)
        self.norm = GroupNorm(1, c)
        self.q, self.k, self.v = (Affine(c, 1.0, None) for _ in range(3))
        self.scale = (c // self.heads) ** -0.5
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.norm_h, self.norm_w, self.v)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the positions, then the channels of `x`."""
        rows = self.gate(self.norm_h(self.strip(mean(x, 3))))  # (B, C, H, 1)
        columns = self.gate(self.norm_w(self.strip(mean(x, 2).transpose(2, 3)))).transpose(2, 3)  # (B, C, 1, W)
        x = x * match(rows, x) * match(columns, x)
        z = self.norm(self.cells(x))
        b, c, h, w = z.shape
        q, k, v = (heads_of(f(z), self.heads).transpose(2, 3) for f in (self.q, self.k, self.v))  # (B, heads, D, h w)
        y = attend(q * self.scale, k, v).reshape(b, c, h, w)
        return x * match(self.gate(spatial_mean(y)), x)

    def strip(self, means: Tensor) -> Tensor:
        """Pass the groups of row or column means, (B, C, L, 1), through their convolutions."""
        return torch.cat([f(m) for f, m in zip(self.strips, means.chunk(len(self.strips), 1))], 1)

    def cells(self, x: Tensor) -> Tensor:
        """Return the means of the cells, the last ones over what they hold."""
        n = self.window_size
        return nn.functional.avg_pool2d(x, n, n, ceil_mode=True, count_include_pad=False)
