"""CenterMask: Real-Time Anchor-Free Instance Segmentation, Lee, Park, https://arxiv.org/abs/1911.06667

Effective squeeze-and-excitation: SE with one C x C layer in place of two, so nothing is lost to a bottleneck;
the gate is a hard sigmoid, as in the authors' code.

Equal to: ``timm.layers.EffectiveSEModule``.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Gate, check_channels, identity_start, spatial_mean, zero_
from ._gates import Gates, over_input

__all__ = ["ESE"]


@register(
    "eSE",
    aliases=("ESE", "EffectiveSE", "EffectiveSELayer", "EffectiveSEModule", "eSEModule"),
    paper="CenterMask: Real-Time Anchor-Free Instance Segmentation",
    arxiv="1911.06667",
    kind="channel",
    oracle="timm EffectiveSEModule",
    use="SE without the bottleneck, quick on devices that lack exp; C^2 weights",
)
class ESE(nn.Module):
    """Effective squeeze-and-excitation, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input; adds C^2 + C weights.
        gate: ``hard_sigmoid`` (the authors') or ``sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "layer 0, gate 2 * hard sigmoid"
    gates: ClassVar[Gates] = over_input("channel")

    def __init__(self, channels: int, *, gate: str = "hard_sigmoid", start: str = "paper") -> None:
        super().__init__()
        check_channels(channels, "eSE")
        self.fc = nn.Conv2d(channels, channels, 1)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        return x * self.gate(self.fc(spatial_mean(x)))
