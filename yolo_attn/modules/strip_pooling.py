"""Strip Pooling: Rethinking Spatial Pooling for Scene Parsing, Hou, Zhang, Cheng, Feng,
https://arxiv.org/abs/2003.13328

The strip pooling module: the mean of each row and of each column (eq. 2, 3), a convolution of length 3 along each,
their sum at every position (eq. 4); a 1 x 1 convolution and a sigmoid of it weigh the input (eq. 5).

Equal to: the formula with what the authors' code adds to it: a batch norm after each of the two convolutions, which
have no bias, and a ReLU on the sum.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, Gate, check_channels, check_kernel, identity_start, mean, zero_
from ._gates import Gates, over_input

__all__ = ["StripPooling"]


@register(
    "StripPooling",
    aliases=("StripPool", "StripPoolingAttention", "SPBlock", "StripPoolingModule"),
    paper="Strip Pooling: Rethinking Spatial Pooling for Scene Parsing",
    arxiv="2003.13328",
    kind="both",
    oracle="formula (eq. 2-5)",
    use="long and thin objects; a gate for each neuron from its row and its column",
)
class StripPooling(nn.Module):
    """Strip pooling module, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        kernel_size: Length of the convolutions along rows and columns, odd.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An even kernel, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layer 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("value")

    def __init__(self, channels: int, *, kernel_size: int = 3, gate: str = "sigmoid", start: str = "paper") -> None:
        super().__init__()
        c, k = check_channels(channels, "StripPooling"), check_kernel(kernel_size)
        self.conv_h = nn.Conv2d(c, c, (k, 1), padding=(k // 2, 0), bias=False)
        self.norm_h = BatchNorm(c)
        self.conv_w = nn.Conv2d(c, c, (1, k), padding=(0, k // 2), bias=False)
        self.norm_w = BatchNorm(c)
        self.act = nn.ReLU()
        self.conv = nn.Conv2d(c, c, 1)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value of `x` by its row and its column."""
        rows = self.norm_h(self.conv_h(mean(x, 3)))  # (B, C, H, 1)
        columns = self.norm_w(self.conv_w(mean(x, 2)))  # (B, C, 1, W)
        z = self.act(
            rows - (-columns)
        )  # a sum as a difference: OpenCV 5.0 takes conv + x for a residual of equal shape
        return x * self.gate.of_map(self.conv(z))
