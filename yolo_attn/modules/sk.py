"""Selective Kernel Networks, Li, Wang, Hu, Yang, https://arxiv.org/abs/1903.06586

Split: branches with kernels 3 and 5, each convolution, batch norm, ReLU; the larger kernels are 3 x 3 with dilation.
Fuse (eq. 1-3): the channel means of the sum, reduced to d = max(C / r, L), batch norm, ReLU. Select (eq. 5, 6): a
softmax over the branches for each channel.

Equal to: ``timm.layers.SelectiveKernel(c, kernel_size=[3, 5], split_input=False, groups=G, rd_channels=d)``.
The paper's 32 groups are lowered to the greatest common divisor with C. There is no residual in the formula: the
block replaces a convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    BatchNorm,
    Blend,
    check_channels,
    check_kernels,
    fit_groups,
    hidden_channels,
    match,
    spatial_mean,
)
from ._gates import Gates, layer, softmax

__all__ = ["SK"]


@register(
    "SK",
    aliases=("SKAttention", "SKConv", "SelectiveKernel", "SKBlock"),
    paper="Selective Kernel Networks",
    arxiv="1903.06586",
    kind="channel",
    oracle="timm SelectiveKernel",
    use="chooses between receptive fields; a convolution rather than a gate, so dearer than SE",
)
class SK(nn.Module):
    """Selective kernel convolution, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: r of eq. 4.
        kernel_sizes: Kernels of the branches, odd, at least two; k becomes 3 x 3 with dilation (k - 1) / 2.
        groups: Groups of the branches, lowered until they divide C.
        min_channels: L of eq. 4.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, an even kernel or fewer than two, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = (layer("channel", "fc_select", name="paths", through=softmax(lambda m: len(m.paths), outer=True)),)

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        kernel_sizes: Sequence[int] = (3, 5),
        groups: int = 32,
        min_channels: int = 32,
        start: str = "paper",
    ) -> None:
        super().__init__()
        g = fit_groups(check_channels(channels, "SK"), groups)
        self.channels = channels
        hidden = hidden_channels(channels, reduction, min_channels)
        self.paths = nn.ModuleList(self.path(channels, k, g) for k in check_kernels(kernel_sizes))
        self.fc_reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = BatchNorm(hidden)
        self.act = nn.ReLU()
        self.fc_select = nn.Conv2d(hidden, channels * len(kernel_sizes), 1, bias=False)
        self.blend = Blend.when(start)

    @staticmethod
    def path(channels: int, k: int, groups: int) -> nn.Sequential:
        """Return one branch of kernel `k`: 1 x 1, or 3 x 3 dilated to its extent."""
        d = max((k - 1) // 2, 1)
        conv = nn.Conv2d(channels, channels, min(k, 3), padding=(k - 1) // 2, dilation=d, groups=groups, bias=False)
        return nn.Sequential(conv, BatchNorm(channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Mix the branches of `x`."""
        u = [path(x) for path in self.paths]
        z = sum((spatial_mean(v) for v in u[1:]), spatial_mean(u[0]))  # the mean of the sum
        score = self.fc_select(self.act(self.bn(self.fc_reduce(z)))).reshape(-1, len(u), self.channels, 1)
        weight = match(score.transpose(1, 2).softmax(2), x).split(1, 2)  # one for each branch, (B, C, 1, 1)
        y = u[0] * weight[0]
        for v, w in zip(u[1:], weight[1:]):
            y = y + v * w
        return y if self.blend is None else self.blend(x, y)
