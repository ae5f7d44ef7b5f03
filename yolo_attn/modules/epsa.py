"""EPSANet: An Efficient Pyramid Squeeze Attention Block on Convolutional Neural Network, Zu, Lu, Cui, Wang, Yan,
https://arxiv.org/abs/2105.14447

Pyramid squeeze attention: several convolutions of different kernels and groups side by side, each C -> C / S (eq.
1-3); an SE branch of one set of weights gives each part its scores; a softmax over the parts, channel by channel,
turns them into weights, and the weighted parts are concatenated.

Equal to: the formula, with the authors' kernels 3, 5, 7, 9, groups 1, 4, 8, 16 and convolutions without bias; groups
that do not divide the channels shrink to what does. Their SE branch ends in a sigmoid before the softmax, and so it
does here. The name PSA alone belongs to a host's own module, so it is no alias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    Blend,
    Gate,
    check_channels,
    check_kernels,
    fit_groups,
    full_precision,
    hidden_channels,
    match,
    spatial_mean,
    wide,
)
from ._gates import Gates, layer, softmax

__all__ = ["EPSA"]

GROUPS = (1, 4, 8, 16)  # of kernels 3, 5, 7, 9; further kernels take the last


@register(
    "EPSA",
    aliases=("PSAModule", "EPSAModule", "EPSANet", "EPSA_PSA", "PyramidSqueezeAttention"),
    paper="EPSANet: An Efficient Pyramid Squeeze Attention Block on Convolutional Neural Network",
    arxiv="2105.14447",
    kind="channel",
    oracle="formula",
    use="several receptive fields side by side, weighed channel by channel; a convolution rather than a gate",
)
class EPSA(nn.Module):
    """Pyramid squeeze attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input, a multiple of the number of kernels.
        kernel_sizes: Kernels of the parts, odd, at least two.
        reduction: The hidden layer of the SE branch is narrower than a part by this factor.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: Channels that do not divide into the parts, an even kernel or fewer than two, or an unknown
            `gate` or `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = (layer("channel", name="parts", call=None, through=softmax(lambda m: len(m.convs), outer=True)),)

    def __init__(
        self,
        channels: int,
        *,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        reduction: int = 16,
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        kernels = check_kernels(kernel_sizes)
        if check_channels(channels, "EPSA") % len(kernels):
            raise ValueError(
                f"EPSA divides its channels into {len(kernels)} parts, which {channels} channels do not allow"
            )
        part = self.part = channels // len(kernels)
        groups = [fit_groups(part, GROUPS[min(i, len(GROUPS) - 1)]) for i in range(len(kernels))]
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, part, k, padding=k // 2, groups=g, bias=False) for k, g in zip(kernels, groups)
        )
        hidden = hidden_channels(part, reduction)
        self.fc1 = nn.Conv2d(part, hidden, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, part, 1)
        self.gate = Gate(gate)
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted parts of `x`."""
        parts = [conv(x) for conv in self.convs]
        score = torch.cat(
            [self.gate(self.fc2(self.act(self.fc1(spatial_mean(p))))) for p in parts], 3
        )  # (B, C/S, 1, S)
        with full_precision(x):
            weight = match(wide(score).softmax(3), parts[0])
        y = torch.cat([p * weight[..., i : i + 1] for i, p in enumerate(parts)], 1)
        return y if self.blend is None else self.blend(x, y)
