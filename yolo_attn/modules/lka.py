"""Visual Attention Network, Guo, Lu, Liu, Cheng, Hu, https://arxiv.org/abs/2202.09741

Large kernel attention: a K x K kernel from a (2d - 1) x (2d - 1) depthwise convolution, a K/d x K/d depthwise one with
dilation d (K/d rounded up) and a 1 x 1 convolution; the result multiplies the input, without a sigmoid.

Equal to: the formula. The authors' block around it (1 x 1, GELU, attention, 1 x 1, residual) is left to rows of its own.
Quadratic in the input, as LSKA is: in fp16 the product is formed in fp32 and ends at the largest number of fp16.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import check_channels, check_integer, check_kernel, identity_start, product, zero_
from ._gates import Gates, over_input

__all__ = ["LKA"]


@register(
    "LKA",
    aliases=("LKAttention", "LargeKernelAttention"),
    paper="Visual Attention Network",
    arxiv="2202.09741",
    kind="both",
    oracle="formula (section 3)",
    use="wide context and channels in one product; LSKA is its cheaper relative for larger kernels",
)
class LKA(nn.Module):
    """Large kernel attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        kernel_size: K, odd; the paper's is 21.
        dilation: d; the paper's is 3.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An even kernel or one whose K / d, rounded up, is, a dilation below 1, or an unknown `start`.
    """

    identity: ClassVar[str] = "last layer 0, its bias 1"
    gates: ClassVar[Gates] = over_input("value", ends=None)

    def __init__(self, channels: int, *, kernel_size: int = 21, dilation: int = 3, start: str = "paper") -> None:
        super().__init__()
        c, d = check_channels(channels, "LKA"), check_integer(dilation, "dilation")
        near, far = 2 * d - 1, -(-check_kernel(kernel_size) // d)
        if far % 2 == 0:
            raise ValueError(f"kernel_size / dilation, rounded up, must be odd, got {kernel_size} / {d}")
        self.conv0 = nn.Conv2d(c, c, near, padding=near // 2, groups=c)
        self.conv_spatial = nn.Conv2d(c, c, far, padding=d * (far // 2), dilation=d, groups=c)
        self.conv1 = nn.Conv2d(c, c, 1)
        if identity_start(start):
            zero_(self.conv1)
            nn.init.ones_(self.conv1.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` by its wide surroundings."""
        return product(x, self.conv1(self.conv_spatial(self.conv0(x))))
