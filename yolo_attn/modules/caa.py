"""Poly Kernel Inception Network for Remote Sensing Detection, Cai, Lai, Wang, Wang, Sun, Yao,
https://arxiv.org/abs/2403.06258

Context anchor attention: 7 x 7 average pooling, 1 x 1 convolution, a 1 x k and a k x 1 depthwise convolution, 1 x 1
convolution, sigmoid; here the gate of the input itself. The paper's k grows with the depth of the block, from 11 by 2.

Equal to: the formula, with a batch norm and a SiLU after both 1 x 1 convolutions as in the authors' code, so that the
gate lies between 0.43 and 1.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, Gate, check_channels, check_kernel, identity_start, zero_
from ._gates import Gates, over_input

__all__ = ["CAA"]


@register(
    "CAA",
    aliases=("ContextAnchorAttention", "CAAttention"),
    paper="Poly Kernel Inception Network for Remote Sensing Detection",
    arxiv="2403.06258",
    kind="both",
    oracle="formula (section 3)",
    use="long-range context from strips, made for objects in aerial pictures",
)
class CAA(nn.Module):
    """Context anchor attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        kernel_size: k of the strips, odd.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An even kernel, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last batch norm 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("value")

    def __init__(self, channels: int, *, kernel_size: int = 11, gate: str = "sigmoid", start: str = "paper") -> None:
        super().__init__()
        c, k = check_channels(channels, "CAA"), check_kernel(kernel_size)
        self.pool = nn.AvgPool2d(7, 1, 3)
        self.conv1 = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), BatchNorm(c), nn.SiLU())
        self.conv_h = nn.Conv2d(c, c, (1, k), padding=(0, k // 2), groups=c)
        self.conv_v = nn.Conv2d(c, c, (k, 1), padding=(k // 2, 0), groups=c)
        self.conv2 = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), BatchNorm(c), nn.SiLU())
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.conv2[1])

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` by its context."""
        return x * self.gate(self.conv2(self.conv_v(self.conv_h(self.conv1(self.pool(x))))))
