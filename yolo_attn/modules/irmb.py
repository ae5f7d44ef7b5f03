"""Rethinking Mobile Block for Efficient Attention-based Models (EMO), Zhang, Li, Li, Huang, Liu, Yang, Wang, Liu, Xie,
Bai, https://arxiv.org/abs/2301.01146

The inverted residual mobile block: batch norm; self-attention within windows, whose queries and keys come from the
input and whose values from the expanded features; a depthwise convolution with a residual; a 1 x 1 convolution back;
a residual around all of it. The paper's efficient operator is ``x + DW(attention(x))`` inside.

Equal to: the formula with the authors' layers: no biases, ReLU on the values, batch norm and SiLU after the
depthwise convolution. A map that the window does not divide is padded with zeros below and to the right, which are
attended to, as theirs are.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, attend, check_channels, check_integer, check_kernel, fit_groups, identity_start, zero_
from ._gates import ADDS, Gates
from ._local import join_windows, windows_of

__all__ = ["IRMB"]


@register(
    "iRMB",
    aliases=("IRMB", "iRMBAttention", "iRMB_Attention", "InvertedResidualMobileBlock"),
    paper="Rethinking Mobile Block for Efficient Attention-based Models",
    arxiv="2301.01146",
    kind="both",
    oracle="formula",
    use="attention in windows and a depthwise convolution in one residual block; light",
)
class IRMB(nn.Module):
    """Inverted residual mobile block, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        head_channels: Channels of a head; lowered until they divide C.
        window_size: Side of the windows.
        kernel_size: Kernel size of the depthwise convolution, odd.
        factor: Width of the values, as a multiple of the input's.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, an even kernel, or an unknown `start`.
    """

    identity: ClassVar[str] = "last layer 0: the residual alone"
    gates: ClassVar[Gates] = ADDS

    def __init__(
        self,
        channels: int,
        *,
        head_channels: int = 8,
        window_size: int = 7,
        kernel_size: int = 3,
        factor: int = 1,
        start: str = "paper",
    ) -> None:
        super().__init__()
        c = self.channels = check_channels(channels, "iRMB")
        d = fit_groups(c, head_channels, "head_channels")
        self.heads, self.scale = c // d, d**-0.5
        self.window_size = check_integer(window_size, "window_size")
        wide = c * check_integer(factor, "factor")
        self.norm = BatchNorm(c)
        self.qk = nn.Conv2d(c, 2 * c, 1, bias=False)
        self.v = nn.Conv2d(c, wide, 1, bias=False)
        self.act = nn.ReLU()
        self.local = nn.Sequential(
            nn.Conv2d(wide, wide, check_kernel(kernel_size), padding=kernel_size // 2, groups=wide, bias=False),
            BatchNorm(wide),
            nn.SiLU(),
        )
        self.proj = nn.Conv2d(wide, c, 1, bias=False)
        if identity_start(start):
            zero_(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        """Add to `x` what its windows and its neighbours hold."""
        z, size = self.norm(x), (self.window_size, self.window_size)
        q, k = windows_of(self.qk(z), size, 2 * self.heads).chunk(2, 1)
        v = windows_of(self.act(self.v(z)), size, self.heads)
        y = join_windows(attend(q * self.scale, k, v), size, self.heads, x)
        return x + self.proj(y + self.local(y))
