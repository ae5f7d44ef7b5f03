"""Non-deep Networks, Goyal, Bochkovskiy, Deng, Koltun, https://arxiv.org/abs/2110.07641

The RepVGG-SSE block of ParNet (section 3.1): a 1 x 1 and a 3 x 3 convolution, batch norm after each, and the
skip-squeeze-excitation ``x * sigmoid(fc(mean(x)))``, summed, then SiLU.

Equal to: the formula. There is no residual around the SiLU: the block replaces a convolution.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, Blend, Gate, check_channels, check_flag, spatial_mean
from ._gates import Gates, layer

__all__ = ["ParNetAttention"]


@register(
    "ParNetAttention",
    aliases=("ParNet", "ParNetAtt"),
    paper="Non-deep Networks",
    arxiv="2110.07641",
    kind="channel",
    oracle="formula (section 3.1)",
    use="a convolution block with a gate beside it; 10 C^2 weights",
    positional=("- -",),
)
class ParNetAttention(nn.Module):
    """RepVGG-SSE block, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        bias: Whether the convolutions before the batch norms have biases.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = (layer("channel", name="branch"),)

    def __init__(self, channels: int, *, bias: bool = False, gate: str = "sigmoid", start: str = "paper") -> None:
        super().__init__()
        check_channels(channels, "ParNetAttention")
        check_flag(bias, "bias")
        self.fc = nn.Conv2d(channels, channels, 1)
        self.conv1x1 = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=bias), BatchNorm(channels))
        self.conv3x3 = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=bias), BatchNorm(channels))
        self.gate = Gate(gate)
        self.act = nn.SiLU()
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the three branches of `x`, activated."""
        y = self.act(self.conv1x1(x) + self.conv3x3(x) + x * self.gate(self.fc(spatial_mean(x))))
        return y if self.blend is None else self.blend(x, y)
