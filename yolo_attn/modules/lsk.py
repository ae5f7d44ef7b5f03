"""Large Selective Kernel Network for Remote Sensing Object Detection, Li, Hou, Zheng, Cheng, Yang, Li,
https://arxiv.org/abs/2303.09030

Two depthwise convolutions in a row, 5 x 5 and 7 x 7 with dilation 3 (table 1), see 5 and 23 positions; a 1 x 1
convolution to C / 2 on the output of each (eq. 2, 3). The mean and the maximum over all channels of both (eq. 5) pass
a 7 x 7 convolution to one map for each kernel and a sigmoid (eq. 6, 7); the features weighted by them are summed, a 1
x 1 convolution leads back to C (eq. 8), and the result multiplies the input (eq. 9).

Equal to: the formula. Layers have biases. The 1 x 1 convolutions, the GELU and the residual around it are the paper's
block: give them rows of their own. Quadratic in the input: in fp16 the product is formed in fp32 and ends at the
largest number of fp16.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import Gate, check_channels, identity_start, match, mean, product, zero_
from ._gates import Gates, over_input

__all__ = ["LSK"]


@register(
    "LSK",
    aliases=("LSKblock", "LSKBlock", "LSKModule", "LSK_Attention"),
    paper="Large Selective Kernel Network for Remote Sensing Object Detection",
    arxiv="2303.09030",
    kind="both",
    oracle="formula (eq. 2-9)",
    use="aerial images: each position chooses between a near and a far view",
)
class LSK(nn.Module):
    """Large selective kernel, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input, at least 2.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: Fewer than 2 channels, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layer 0, its bias 1"
    gates: ClassVar[Gates] = over_input("value", ends=None)

    def __init__(self, channels: int, *, gate: str = "sigmoid", start: str = "paper") -> None:
        super().__init__()
        c = check_channels(channels, "LSK")
        if c < 2:
            raise ValueError(f"LSK halves its channels and needs at least 2, got {c}")
        self.conv0 = nn.Conv2d(c, c, 5, padding=2, groups=c)
        self.conv_spatial = nn.Conv2d(c, c, 7, padding=9, groups=c, dilation=3)
        self.conv1 = nn.Conv2d(c, c // 2, 1)
        self.conv2 = nn.Conv2d(c, c // 2, 1)
        self.conv_squeeze = nn.Conv2d(2, 2, 7, padding=3)
        self.conv = nn.Conv2d(c // 2, c, 1)
        self.gate = Gate(gate)
        if identity_start(start):
            zero_(self.conv)
            nn.init.ones_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value of `x` by a near and a far view."""
        near = self.conv0(x)
        far = self.conv_spatial(near)
        near, far = self.conv1(near), self.conv2(far)
        both = torch.cat((near, far), 1)
        gates = self.gate.of_map(self.conv_squeeze(torch.cat((mean(both, 1), both.amax(1, keepdim=True)), 1)))
        gates = match(gates, near)
        return product(x, self.conv(near * gates[:, :1] + far * gates[:, 1:]))
