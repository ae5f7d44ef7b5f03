"""Global Attention Mechanism: Retain Information to Enhance Channel-Spatial Interactions, Liu, Shao, Hoffmann,
https://arxiv.org/abs/2112.05561

Channel attention: a two-layer MLP over the channels of every single position, sigmoid; nothing is pooled away.
Spatial attention: two 7 x 7 convolutions, C -> C / r -> C, with batch norm, sigmoid. ``F2 = Mc(F1) F1`` (eq. 1),
``F3 = Ms(F2) F2`` (eq. 2). The grouped form shuffles channels between the two convolutions.

Equal to: the formula, with the sigmoid that figure 2 draws after the MLP and public code often leaves out.
The MLP is a pair of 1 x 1 convolutions, the same arithmetic. At 1024 channels it is heavy, about 26 M parameters
ungrouped: pass ``groups=4`` in wide layers.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, Gate, check_channels, check_kernel, fit_groups, hidden_channels, identity_start, zero_
from ._gates import Gates, layer

__all__ = ["GAM"]


@register(
    "GAM",
    aliases=("GAMAttention", "GAM_Attention", "GAMBlock"),
    paper="Global Attention Mechanism: Retain Information to Enhance Channel-Spatial Interactions",
    arxiv="2112.05561",
    kind="both",
    oracle="formula (eq. 1, 2)",
    use="strong and heavy: a gate for each neuron from 7 x 7 context; for narrow layers or with groups",
    positional=("reduction", "- reduction"),
)
class GAM(nn.Module):
    """Global attention mechanism, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: r of both branches.
        kernel_size: Size of the two spatial convolutions, odd.
        groups: Groups of the two spatial convolutions, lowered until they divide C and C // r.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, an even kernel, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layers 0, gates 2 * sigmoid"
    gates: ClassVar[Gates] = layer("value", name="channel"), layer("value", name="spatial", call=1)

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 4,
        kernel_size: int = 7,
        groups: int = 1,
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        check_channels(channels, "GAM")
        hidden = hidden_channels(channels, reduction)
        g = fit_groups(hidden, fit_groups(channels, groups))
        pad = check_kernel(kernel_size) // 2
        self.channel = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, hidden, kernel_size, padding=pad, groups=g),
            BatchNorm(hidden),
            nn.ReLU(),
            nn.ChannelShuffle(g) if g > 1 else nn.Identity(),
            nn.Conv2d(hidden, channels, kernel_size, padding=pad, groups=g),
            BatchNorm(channels),
        )
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.channel[-1], self.spatial[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels, then the positions of `x`."""
        x = x * self.gate(self.channel(x))
        return x * self.gate(self.spatial(x))
