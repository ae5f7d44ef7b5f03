"""Coordinate Attention for Efficient Mobile Network Design, Hou, Zhou, Feng, https://arxiv.org/abs/2103.02907

The means along the width and along the height (eq. 4, 5) go through one shared 1 x 1 convolution, batch norm and
hard swish (eq. 6), then through one 1 x 1 convolution each and a sigmoid (eq. 7, 8); the input is multiplied by both
(eq. 9).

Equal to: ``timm.layers.coord_attn.CoordAttn`` with ``rd_channels=max(8, C // 32)`` and ``bias=True``. Only in training
are the two strips joined, for one batch norm over both; with running statistics each strip alone gives the same,
and the exported graph needs no sizes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, Gate, check_channels, check_flag, hidden_channels, identity_start, mean, zero_
from ._gates import Gates, over_input

__all__ = ["CoordAtt"]


@register(
    "CoordAtt",
    aliases=("CoordAttention", "CoordinateAttention", "CoordAttn", "CA", "CABlock"),
    paper="Coordinate Attention for Efficient Mobile Network Design",
    arxiv="2103.02907",
    kind="both",
    oracle="timm CoordAttn",
    use="channel gates that know the row and the column; made for small networks",
)
class CoordAtt(nn.Module):
    """Coordinate attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: r of eq. 6; the shared layer has C // r channels.
        min_channels: Least width of the shared layer.
        bias: Whether the convolutions have biases.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layers 0, gates 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("value", ends=lambda m: (0.0, m.gate.scale**2))

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 32,
        min_channels: int = 8,
        bias: bool = True,
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        check_channels(channels, "CoordAtt")
        check_flag(bias, "bias")
        hidden = hidden_channels(channels, reduction, min_channels)
        self.conv1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.bn1 = BatchNorm(hidden)
        self.act = nn.Hardswish()
        self.conv_h = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.conv_w = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.conv_h, self.conv_w)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` by row and by column."""
        z_h, z_w = mean(x, 3), mean(x, 2)  # (B, C, H, 1), (B, C, 1, W)
        if self.training:
            joint = self.encode(torch.cat((z_h, z_w.transpose(2, 3)), 2))
            z_h, z_w = joint.split((x.shape[2], x.shape[3]), 2)
            z_w = z_w.transpose(2, 3)
        else:
            z_h, z_w = self.encode(z_h), self.encode(z_w)
        return x * self.gate(self.conv_w(z_w)) * self.gate(self.conv_h(z_h))

    def encode(self, z: Tensor) -> Tensor:
        """Return f of eq. 6 for strips `z`, (B, C, L, 1) -> (B, C // r, L, 1)."""
        return self.act(self.bn1(self.conv1(z)))
