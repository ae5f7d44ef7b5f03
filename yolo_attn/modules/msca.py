"""SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation, Guo, Lu, Hou, Liu, Cheng, Hu,
https://arxiv.org/abs/2209.08575

Multi-scale convolutional attention (eq. 1, 2): a depthwise 5 x 5 convolution; its sum with three pairs of depthwise
strips on it (1 x k and k x 1, k = 7, 11, 21); a 1 x 1 convolution; the result multiplies the input, without a
sigmoid.

Equal to: the formula. The 1 x 1 convolutions, the GELU and the residual around it, and the feed-forward half, belong
to the paper's stage: give them rows of their own. Quadratic in the input: in fp16 the product is formed in fp32 and
ends at the largest number of fp16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import check_channels, check_kernel, check_kernels, identity_start, product, zero_
from ._gates import Gates, over_input

__all__ = ["MSCA"]


@register(
    "MSCA",
    aliases=("MSCAAttention", "SegNeXtAttention", "SegNext_Attention", "SegNext", "AttentionModule_MSCA"),
    paper="SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation",
    arxiv="2209.08575",
    kind="both",
    oracle="formula (eq. 1, 2)",
    use="a gate for each neuron from depthwise strips up to 21 long; LKA's idea at several scales",
)
class MSCA(nn.Module):
    """Multi-scale convolutional attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        kernel_size: Kernel size of the first convolution, odd.
        kernel_sizes: Lengths k of the strips, odd, at least two.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An even kernel or fewer than two, or an unknown `start`.
    """

    identity: ClassVar[str] = "last layer 0, its bias 1"
    gates: ClassVar[Gates] = over_input("value", ends=None)

    def __init__(
        self, channels: int, *, kernel_size: int = 5, kernel_sizes: Sequence[int] = (7, 11, 21), start: str = "paper"
    ) -> None:
        super().__init__()
        c = check_channels(channels, "MSCA")
        self.conv0 = nn.Conv2d(c, c, check_kernel(kernel_size), padding=kernel_size // 2, groups=c)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, c, (1, k), padding=(0, k // 2), groups=c),
                nn.Conv2d(c, c, (k, 1), padding=(k // 2, 0), groups=c),
            )
            for k in check_kernels(kernel_sizes)
        )
        self.conv1 = nn.Conv2d(c, c, 1)
        if identity_start(start):
            zero_(self.conv1)
            nn.init.ones_(self.conv1.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value of `x` by its surroundings."""
        near = self.conv0(x)
        return product(x, self.conv1(sum((strip(near) for strip in self.strips), near)))
