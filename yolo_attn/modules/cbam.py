"""CBAM: Convolutional Block Attention Module, Woo, Park, Lee, Kweon, https://arxiv.org/abs/1807.06521

Channel attention (eq. 2): one shared two-layer MLP on the mean and on the maximum of each channel, summed, sigmoid.
Spatial attention (eq. 3): the mean and the maximum over channels, stacked, a 7 x 7 convolution, sigmoid.
First the channels, then the positions (eq. 1). As in the equations, no layer has a bias or a batch norm.

Equal to: the formula; with ``norm=True`` to ``timm.layers.CbamModule``, whose spatial convolution is followed by a
batch norm, as in the authors' code. The authors' MLP has biases: ``bias=True``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    BatchNorm,
    Gate,
    check_channels,
    check_flag,
    check_kernel,
    hidden_channels,
    identity_start,
    match,
    mean,
    spatial_max,
    spatial_mean,
    zero_,
)
from ._gates import Gates, layer

__all__ = ["CBAM"]


@register(
    "CBAM",
    aliases=("CBAMBlock", "CBAMAttention", "CbamModule", "cbam_block"),
    paper="CBAM: Convolutional Block Attention Module",
    arxiv="1807.06521",
    kind="both",
    oracle="timm CbamModule",
    use="channels, then positions; the usual second try after SE",
    positional=("kernel_size", "reduction kernel_size"),
)
class CBAM(nn.Module):
    """Convolutional block attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: r, the hidden layer of the MLP has C // r channels.
        kernel_size: Size of the spatial convolution, odd.
        min_channels: Least width of the hidden layer.
        bias: Whether the layers of the MLP have biases.
        norm: Whether a batch norm follows the spatial convolution.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, an even kernel, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layers 0, gates 2 * sigmoid"
    gates: ClassVar[Gates] = layer("channel"), layer("spatial", call=1)

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        kernel_size: int = 7,
        min_channels: int = 1,
        bias: bool = False,
        norm: bool = False,
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        check_channels(channels, "CBAM")
        check_flag(bias, "bias")
        hidden = hidden_channels(channels, reduction, min_channels)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.conv = nn.Conv2d(2, 1, check_kernel(kernel_size), padding=kernel_size // 2, bias=False)
        self.norm = BatchNorm(1) if check_flag(norm, "norm") else None
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.fc2, self.norm or self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels, then the positions of `x`."""
        z = self.act(self.fc1(torch.cat((spatial_mean(x), spatial_max(x)), 2))).sum(2, keepdim=True)
        z = match(z, x)  # sums come back in fp32 under CUDA's autocast
        # the second layer is linear: once on the sum, where a bias counts twice
        score = self.fc2(z) if self.fc2.bias is None else self.fc2(z) + self.fc2.bias[:, None, None]
        x = x * self.gate(score)
        z = self.conv(torch.cat((mean(x, 1), x.amax(1, keepdim=True)), 1))
        return x * self.gate.of_map(z if self.norm is None else self.norm(z))
