"""Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks, Roy, Navab, Wachinger,
https://arxiv.org/abs/1803.02579

cSE is SE with r = 2: two layers on the channel means, sigmoid. sSE is a 1 x 1 convolution to one channel, sigmoid.
scSE is the sum of the input weighted by the one and by the other.

Equal to: the formula; the two gates are added before the one product with the input. No layer has a bias there;
public copies have them: ``bias=True``.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Gate, check_channels, check_flag, hidden_channels, identity_start, spatial_mean, zero_
from ._gates import Gates, over_input, times

__all__ = ["SCSE"]


@register(
    "scSE",
    aliases=("SCSE", "SCSEModule", "scSEAttention", "ChannelSpatialSELayer"),
    paper="Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks",
    arxiv="1803.02579",
    kind="both",
    oracle="formula (section 2)",
    use="SE and a spatial gate side by side; usual in segmentation",
)
class SCSE(nn.Module):
    """Spatial and channel squeeze-and-excitation, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: The hidden layer of the channel branch has C // reduction channels.
        bias: Whether the layers have biases.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layers 0: 1/2 + 1/2"
    gates: ClassVar[Gates] = over_input("value", ends=times(2))

    def __init__(
        self, channels: int, *, reduction: int = 2, bias: bool = False, gate: str = "sigmoid", start: str = "paper"
    ) -> None:
        super().__init__()
        check_flag(bias, "bias")
        hidden = hidden_channels(check_channels(channels, "scSE"), reduction)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.conv = nn.Conv2d(channels, 1, 1, bias=bias)
        self.gate = Gate(gate)
        if identity_start(start):
            zero_(self.fc2, self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` by channel and by position."""
        channel = self.gate(self.fc2(self.act(self.fc1(spatial_mean(x)))))
        return x * (channel + self.gate.of_map(self.conv(x)))
