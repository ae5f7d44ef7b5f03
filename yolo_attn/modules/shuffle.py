"""SA-Net: Shuffle Attention for Deep Convolutional Neural Networks, Zhang, Yang, https://arxiv.org/abs/2102.00240

The channels fall into G groups, each group into two halves. Channel half (eq. 1, 2): ``sigmoid(w1 mean(x) + b1) x``.
Spatial half (eq. 3): ``sigmoid(w2 GN(x) + b2) x`` with a group norm of one channel a group. The halves are joined and
a channel shuffle of two groups mixes them. All groups share w1, b1, w2, b2, which start at 0, 1, 0, 1.

Equal to: the formula. G is lowered to the greatest common divisor with C / 2: the authors' 64 does not fit 64 channels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import Affine, Blend, GroupNorm, channel_norm, check_channels, fit_groups, match, spatial_mean, traced
from ._gates import Gates, layer, sigmoid

__all__ = ["ShuffleAttention"]


@register(
    "ShuffleAttention",
    aliases=("SA", "SANet", "sa_layer", "SALayer"),
    paper="SA-Net: Shuffle Attention for Deep Convolutional Neural Networks",
    arxiv="2102.00240",
    kind="both",
    oracle="formula (eq. 1-3)",
    use="channel and spatial gates for 3 C / G weights; among the lightest of both kinds",
    positional=("groups", "- groups"),
)
class ShuffleAttention(nn.Module):
    """Shuffle attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input, even.
        groups: G, lowered until it divides C / 2.
        start: ``paper`` or ``identity``; the latter adds one learned number, for a shuffle is no identity.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: `channels` is odd, `groups` below 1, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = layer("channel", "channel", through=sigmoid), layer("value", "spatial", name="spatial", through=sigmoid)

    def __init__(self, channels: int, *, groups: int = 64, start: str = "paper") -> None:
        super().__init__()
        if check_channels(channels, "ShuffleAttention") % 2:
            raise ValueError(f"ShuffleAttention halves its channels and needs an even number, got {channels}")
        self.groups = fit_groups(channels // 2, groups)
        self.channels = channels
        self.width = width = channels // (2 * self.groups)
        self.channel = Affine(width, weight=0.0, bias=1.0)
        self.norm = GroupNorm(width, width)
        self.spatial = Affine(width, weight=0.0, bias=1.0)
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` and shuffle its channels."""
        h, w = x.shape[2:]
        if traced():
            y = self.weigh(x).reshape(-1, 2, self.channels // 2, h * w).transpose(1, 2).reshape(-1, self.channels, h, w)
            return y if self.blend is None else self.blend(x, y)
        x_c, x_s = x.reshape(-1, 2 * self.width, h, w).split(self.width, 1)
        y_c = x_c * match(self.channel(spatial_mean(x_c)).sigmoid(), x)
        y_s = x_s * match(self.spatial(self.norm(x_s)).sigmoid(), x)
        y = torch.cat((y_c, y_s), 1)
        y = y.reshape(-1, 2, self.channels // 2, h, w).transpose(1, 2).reshape(x.shape)  # channel shuffle
        return y if self.blend is None else self.blend(x, y)

    def weigh(self, x: Tensor) -> Tensor:
        """Gate both halves of each group at once, for export: no groups in the batch, rank 4.

        The score of a channel is ``a norm(x) + m mean(x) + b``, a being 0 in the channel half and m in the spatial one.
        """
        channel, spatial, norm = self.channel, self.spatial, self.norm
        w1, w2 = channel.weight.flatten(), spatial.weight.flatten()
        none = torch.zeros_like(w1)
        a = torch.cat((none, w2 * norm.weight) * self.groups)
        m = torch.cat((w1, none) * self.groups).reshape(1, -1, 1, 1)
        b1, b2 = channel.bias.flatten(), spatial.bias.flatten()  # type: ignore[union-attr]  # both have one
        b = torch.cat((b1, w2 * norm.bias + b2) * self.groups)
        return x * (channel_norm(x, a, b, norm.eps) + m * spatial_mean(x)).sigmoid()

    def extra_repr(self) -> str:
        """Show G."""
        return f"groups={self.groups}"
