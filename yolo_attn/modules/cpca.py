"""Channel prior convolutional attention for medical image segmentation, Huang, Chen, Zou, Lu, Chen,
https://arxiv.org/abs/2306.05196

Channel attention as in CBAM: one shared two-layer MLP on the mean and on the maximum of each channel, summed, sigmoid.
Spatial attention on the result: a 5 x 5 depthwise convolution, its sum with three pairs of depthwise strips on it
(1 x k and k x 1, k = 7, 11, 21), a 1 x 1 convolution; this multiplies without a sigmoid, one weight for each channel
and position.

Equal to: the formula. The authors' code adds two sigmoids where the formula has the sigmoid of a sum, and surrounds the
module with a 1 x 1 convolution and a GELU before it and a 1 x 1 convolution after it, all sharing one weight; give those
rows of their own. Quadratic in the input: in fp16 the product is formed in fp32 and ends at the largest number of fp16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    Gate,
    check_channels,
    check_kernels,
    hidden_channels,
    identity_start,
    match,
    product,
    spatial_max,
    spatial_mean,
    zero_,
)
from ._gates import Gates, layer

__all__ = ["CPCA"]


@register(
    "CPCA",
    aliases=("CPCAAttention", "ChannelPriorConvolutionalAttention"),
    paper="Channel prior convolutional attention for medical image segmentation",
    arxiv="2306.05196",
    kind="both",
    oracle="formula (section 3)",
    use="CBAM whose spatial half keeps the channels apart: a gate for each neuron from depthwise strips",
)
class CPCA(nn.Module):
    """Channel prior convolutional attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: The hidden layer of the MLP has C // reduction channels.
        kernel_sizes: Lengths k of the strips, odd, at least two.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``, of the channels.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, an even kernel or fewer than two, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layers 0, gate 2 * sigmoid, last bias 1"
    gates: ClassVar[Gates] = layer("channel"), layer("value", "conv1", ends=None)

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 4,
        kernel_sizes: Sequence[int] = (7, 11, 21),
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        c = check_channels(channels, "CPCA")
        hidden = hidden_channels(c, reduction)
        self.fc1 = nn.Conv2d(c, hidden, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, c, 1)
        self.gate = Gate(gate, start)
        self.conv0 = nn.Conv2d(c, c, 5, padding=2, groups=c)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, c, (1, k), padding=(0, k // 2), groups=c),
                nn.Conv2d(c, c, (k, 1), padding=(k // 2, 0), groups=c),
            )
            for k in check_kernels(kernel_sizes)
        )
        self.conv1 = nn.Conv2d(c, c, 1)
        if identity_start(start):
            zero_(self.fc2, self.conv1)
            nn.init.ones_(self.conv1.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`, then each of its values by its surroundings."""
        z = self.act(self.fc1(torch.cat((spatial_mean(x), spatial_max(x)), 2)))
        x = x * self.gate(match(self.fc2(z).sum(2, keepdim=True), x))  # sums come back in fp32 under CUDA's autocast
        near = self.conv0(x)
        return product(x, self.conv1(sum((strip(near) for strip in self.strips), near)))
