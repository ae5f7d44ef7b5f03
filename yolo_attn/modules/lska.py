"""Large Separable Kernel Attention: Rethinking the Large Kernel Attention Design in CNN, Lau, Po, Rehman,
https://arxiv.org/abs/2309.01439

A k x k depthwise kernel from four 1-D ones: 1 x (2d - 1) and (2d - 1) x 1, then 1 x floor(k / d) and
floor(k / d) x 1 with dilation d, then a 1 x 1 convolution; the result multiplies the input, without a sigmoid.

Equal to: the formula. It is quadratic in the input, without a gate that would bound it: in fp16 the product is formed
in fp32 and ends at the largest number of fp16.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import check_channels, check_integer, check_kernel, identity_start, product, zero_
from ._gates import Gates, over_input

__all__ = ["LSKA"]


@register(
    "LSKA",
    aliases=("LSKAttention", "LargeSeparableKernelAttention"),
    paper="Large Separable Kernel Attention: Rethinking the Large Kernel Attention Design in CNN",
    arxiv="2309.01439",
    kind="both",
    oracle="formula (section 3)",
    use="very wide context by cheap 1-D kernels; often behind SPPF",
)
class LSKA(nn.Module):
    """Large separable kernel attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        kernel_size: k, odd; the paper's are 7, 11, 23, 35, 41, 53 and 65.
        dilation: d. Default: the paper's, 2 up to k = 11 and 3 above.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A kernel that is even or whose k / d, rounded down, is, a dilation below 1, or an unknown `start`.
    """

    identity: ClassVar[str] = "last layer 0, its bias 1"
    gates: ClassVar[Gates] = over_input("value", ends=None)

    def __init__(
        self, channels: int, *, kernel_size: int = 23, dilation: int | None = None, start: str = "paper"
    ) -> None:
        super().__init__()
        c, k = check_channels(channels, "LSKA"), check_kernel(kernel_size)
        d = (2 if k <= 11 else 3) if dilation is None else dilation
        if (k // check_integer(d, "dilation")) % 2 == 0:
            raise ValueError(f"kernel_size // dilation must be odd, got {k} // {d}")
        near, far = 2 * d - 1, k // d
        reach = d * (far // 2)
        self.conv0h = nn.Conv2d(c, c, (1, near), padding=(0, near // 2), groups=c)
        self.conv0v = nn.Conv2d(c, c, (near, 1), padding=(near // 2, 0), groups=c)
        self.conv_spatial_h = nn.Conv2d(c, c, (1, far), padding=(0, reach), dilation=d, groups=c)
        self.conv_spatial_v = nn.Conv2d(c, c, (far, 1), padding=(reach, 0), dilation=d, groups=c)
        self.conv1 = nn.Conv2d(c, c, 1)
        if identity_start(start):
            zero_(self.conv1)
            nn.init.ones_(self.conv1.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` by its wide surroundings."""
        z = self.conv_spatial_v(self.conv_spatial_h(self.conv0v(self.conv0h(x))))
        return product(x, self.conv1(z))
