"""ELA: Efficient Local Attention for Deep Convolutional Neural Networks, Xu, Wan, https://arxiv.org/abs/2403.01123

The means along the width and along the height each pass a 1-D convolution, a group norm and a sigmoid;
the input is multiplied by both. Defaults are the paper's ELA-B: depthwise, k = 7, 16 groups.

Equal to: ``timm.layers.coord_attn.EfficientLocalAttn`` with the identity as activation and this group norm. The
convolutions run as 2-D ones of kernel (k, 1) and (1, k). Numbers of groups are lowered to the greatest common divisor.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Gate, GroupNorm, check_channels, check_kernel, fit_groups, identity_start, mean, zero_
from ._gates import Gates, over_input

__all__ = ["ELA"]


@register(
    "ELA",
    aliases=("EfficientLocalAttention", "EfficientLocalAttn", "EfficientLocalizationAttention"),
    paper="ELA: Efficient Local Attention for Deep Convolutional Neural Networks",
    arxiv="2403.01123",
    kind="both",
    oracle="timm EfficientLocalAttn",
    use="CoordAtt without its bottleneck: rows and columns, no channel reduction",
)
class ELA(nn.Module):
    """Efficient local attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        kernel_size: k of the 1-D convolutions, odd.
        groups: Groups of the convolutions. Default: C (depthwise); ELA-S and ELA-L have C // 8.
        norm_groups: Groups of the group norms.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An even kernel, groups below 1, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "group norms 0, gates 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("value", ends=lambda m: (0.0, m.gate.scale**2))

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 7,
        groups: int | None = None,
        norm_groups: int = 16,
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        check_channels(channels, "ELA")
        k, pad = check_kernel(kernel_size), kernel_size // 2
        g = channels if groups is None else fit_groups(channels, groups)
        ng = fit_groups(channels, norm_groups, "norm_groups")
        self.conv_h = nn.Conv2d(channels, channels, (k, 1), padding=(pad, 0), groups=g, bias=False)
        self.conv_w = nn.Conv2d(channels, channels, (1, k), padding=(0, pad), groups=g, bias=False)
        self.norm_h, self.norm_w = GroupNorm(ng, channels), GroupNorm(ng, channels)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.norm_h, self.norm_w)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` by row and by column."""
        a_h = self.gate(self.norm_h(self.conv_h(mean(x, 3))))  # (B, C, H, 1)
        a_w = self.gate(self.norm_w(self.conv_w(mean(x, 2))))  # (B, C, 1, W)
        return x * a_h * a_w
