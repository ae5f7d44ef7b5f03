"""Polarized Self-Attention: Towards High-quality Pixel-wise Regression, Liu, Liu, Fan, Lin,
https://arxiv.org/abs/2107.00782

Channel-only branch: values of C / 2 channels, summed over the positions by a softmax over a one-channel query;
1 x 1 convolution to C, layer norm, sigmoid. Spatial-only branch: the softmax over the C / 2 channels of the
mean query weighs the value channels; sigmoid. Parallel layout: the sum of both products. Sequential layout: channels
first, then positions.

Equal to: the formula. The authors' code departs from it: it takes the spatial softmax over the positions, and has no
layer norm in the parallel form and a bottleneck before it in the sequential one. Both branches are linear in their
values, so the pooling comes before the 1 x 1 convolution (weights that sum to 1 let its bias pass): the same result
without two maps of C / 2 channels.
The name PSA alone belongs to a block of the host.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Gate, LayerNorm, check_channels, identity_start, match, softmax_mean, spatial_mean, zero_
from ._gates import Gates, layer, over_input, times

__all__ = ["ParallelPolarizedSelfAttention", "SequentialPolarizedSelfAttention"]

PAPER = "Polarized Self-Attention: Towards High-quality Pixel-wise Regression"
ARXIV = "2107.00782"


class _ChannelWeight(nn.Module):
    """A_ch before the sigmoid, (B, C, H, W) -> (B, C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, 1, 1)
        self.value = nn.Conv2d(channels, channels // 2, 1)
        self.out = nn.Conv2d(channels // 2, channels, 1)
        self.norm = LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.out(self.value(softmax_mean(x, self.query(x)))))


class _SpatialWeight(nn.Module):
    """A_sp before the sigmoid, (B, C, H, W) -> (B, 1, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 2, 1)
        self.value = nn.Conv2d(channels, channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = match(self.query(spatial_mean(x)).softmax(1), x)  # (B, C/2, 1, 1)
        # sum_k weight_k (V x + b)_k = (V^T weight) x + b weight, a dot product with each position
        vector = nn.functional.conv_transpose2d(weight, self.value.weight)  # (B, C, 1, 1)
        shift = nn.functional.conv2d(weight, self.value.bias.view(1, -1, 1, 1))  # type: ignore[union-attr]
        return match((x * vector).sum(1, keepdim=True), x) + shift


class _Polarized(nn.Module):
    def __init__(self, channels: int, start: str, gate_start: str) -> None:
        super().__init__()
        if check_channels(channels, "PolarizedSelfAttention") < 2:
            raise ValueError(f"polarized self-attention halves its channels and needs at least 2, got {channels}")
        self.channel = _ChannelWeight(channels)
        self.spatial = _SpatialWeight(channels)
        self.gate = Gate(start=gate_start)
        if identity_start(start):
            zero_(self.channel.norm, self.spatial.value)


@register(
    "ParallelPolarizedSelfAttention",
    aliases=("PSA_p", "PSAp", "ParallelPSA"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="both",
    oracle="formula (section 3.1)",
    use="pixel-wise tasks such as keypoints and masks; both branches see the input",
    positional=("-",),
)
class ParallelPolarizedSelfAttention(_Polarized):
    """Polarized self-attention, parallel layout, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input, at least 2.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: Fewer than 2 channels, or an unknown `start`.
    """

    identity: ClassVar[str] = "scores 0: 1/2 + 1/2"
    gates: ClassVar[Gates] = over_input("value", ends=times(2))

    def __init__(self, channels: int, *, start: str = "paper") -> None:
        super().__init__(channels, start, "paper")

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` by the sum of both branches."""
        return x * (self.gate(self.channel(x)) + self.gate(self.spatial(x)))


@register(
    "SequentialPolarizedSelfAttention",
    aliases=("PSA_s", "PSAs", "SequentialPSA", "PolarizedSelfAttention"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="both",
    oracle="formula (section 3.1)",
    use="pixel-wise tasks such as keypoints and masks; channels first, then positions",
    positional=("-",),
)
class SequentialPolarizedSelfAttention(_Polarized):
    """Polarized self-attention, sequential layout, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input, at least 2.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: Fewer than 2 channels, or an unknown `start`.
    """

    identity: ClassVar[str] = "scores 0, gates 2 * sigmoid"
    gates: ClassVar[Gates] = layer("channel"), layer("spatial", call=1)

    def __init__(self, channels: int, *, start: str = "paper") -> None:
        super().__init__(channels, start, start)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels, then the positions of `x`."""
        x = x * self.gate(self.channel(x))
        return x * self.gate(self.spatial(x))
