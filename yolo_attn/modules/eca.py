"""ECA-Net: Efficient Channel Attention, Wang, Wu, Zhu, Li, Zuo, Hu, https://arxiv.org/abs/1910.03151

A 1-D convolution without bias slides over the vector of channel means (eq. 9), its width k chosen from the
number of channels (eq. 12): k = |log2(C)/gamma + b/gamma| rounded to the nearest odd number.
SE-Var1, SE-Var2 and SE-Var3 are the variants of table 2 that show why: none reduces dimension. Numbers of equations and
tables are those of the CVPR paper.

Equal to: ``timm.layers.EcaModule(c)``; SE-Var1-3 to the formula. The convolution runs as a 2-D one of kernel
(k, 1) over (B, 1, C, 1), which keeps the exported graph at six nodes.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, Gate, check_channels, check_kernel, check_number, identity_start, match, spatial_mean, zero_
from ._gates import Gates, over_input

__all__ = ["ECA", "SEVar1", "SEVar2", "SEVar3", "eca_kernel_size"]

PAPER = "ECA-Net: Efficient Channel Attention for Deep CNNs"
ARXIV = "1910.03151"


def eca_kernel_size(channels: int, gamma: float = 2, b: float = 1) -> int:
    """Return k of eq. 12: 3, 5, 5, 5, 5 at 64, 128, 256, 512, 1024 channels."""
    t = int(abs((math.log2(channels) + check_number(b, "b")) / check_number(gamma, "gamma", 0, above=True)))
    return max(t if t % 2 else t + 1, 3)


@register(
    "ECA",
    aliases=("ECAAttention", "eca_layer", "ECALayer", "EcaModule", "ECABlock"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="channel",
    oracle="timm EcaModule",
    use="SE's effect for a handful of weights; the cheapest learned gate",
)
class ECA(nn.Module):
    """Efficient channel attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        kernel_size: k, odd. Default: chosen from C by eq. 12.
        gamma: gamma of eq. 12.
        b: b of eq. 12.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: `kernel_size` is even or below 1, `gamma` not positive, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "convolution 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("channel")

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int | None = None,
        gamma: float = 2,
        b: float = 1,
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        check_channels(channels, "ECA")
        k = eca_kernel_size(channels, gamma, b) if kernel_size is None else check_kernel(kernel_size)
        self.conv = nn.Conv2d(1, 1, (k, 1), padding=(k // 2, 0), bias=False)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        z = self.conv(spatial_mean(x).transpose(1, 2))  # (B, C, 1, 1) -> (B, 1, C, 1)
        return x * self.gate(z.transpose(1, 2))


@register(
    "SEVar1",
    aliases=("SE_Var1",),
    paper=PAPER,
    arxiv=ARXIV,
    kind="channel",
    oracle="formula (table 2)",
    use="a baseline: channel gates without a single weight",
)
class SEVar1(nn.Module):
    """SE-Var1 of table 2, gate = sigmoid(mean); no parameters, (B, C, H, W) -> (B, C, H, W).

    Args:
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        ValueError: An unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = over_input("channel", ends=(0.0, 1.0))

    def __init__(self, *, start: str = "paper") -> None:
        super().__init__()
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        y = x * spatial_mean(x).sigmoid()
        return y if self.blend is None else self.blend(x, y)


@register(
    "SEVar2",
    aliases=("SE_Var2",),
    paper=PAPER,
    arxiv=ARXIV,
    kind="channel",
    oracle="formula (table 2)",
    use="a baseline: one weight a channel, no interaction between channels",
)
class SEVar2(nn.Module):
    """SE-Var2 of table 2, gate = sigmoid(w * mean) with one weight a channel, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input; adds C weights.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An unknown `start`.
    """

    identity: ClassVar[str] = "weights 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("channel")

    def __init__(self, channels: int, *, start: str = "paper") -> None:
        super().__init__()
        check_channels(channels, "SEVar2")
        self.weight = nn.Parameter(torch.empty(1, channels, 1, 1))
        # A diagonal layer has fan-in 1; a fully connected layer's default range for that fan-in is [-1, 1].
        nn.init.uniform_(self.weight, -1.0, 1.0)
        self.gate = Gate(start=start)
        if identity_start(start):
            zero_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        return x * match(self.gate(self.weight * spatial_mean(x)), x)


@register(
    "SEVar3",
    aliases=("SE_Var3",),
    paper=PAPER,
    arxiv=ARXIV,
    kind="channel",
    oracle="formula (table 2)",
    use="a baseline: one full C x C layer, all channels interact without reduction",
)
class SEVar3(nn.Module):
    """SE-Var3 of table 2, gate = sigmoid(W mean) with one full C x C layer, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input; adds C^2 weights.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An unknown `start`.
    """

    identity: ClassVar[str] = "layer 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("channel")

    def __init__(self, channels: int, *, start: str = "paper") -> None:
        super().__init__()
        check_channels(channels, "SEVar3")
        self.fc = nn.Conv2d(channels, channels, 1, bias=False)
        self.gate = Gate(start=start)
        if identity_start(start):
            zero_(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        return x * self.gate(self.fc(spatial_mean(x)))
