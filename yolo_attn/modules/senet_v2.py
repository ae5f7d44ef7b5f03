"""SENetV2: Aggregated dense layer for channelwise and global representations, Narayanan,
https://arxiv.org/abs/2311.10807

Squeeze-and-excitation whose squeezed vector passes several fully connected layers side by side instead of one, each C
-> C / r with a ReLU; their outputs are concatenated and a last layer leads back to C; sigmoid, and each channel times
its weight. The number of layers side by side is the cardinality, 4 in the paper.

Equal to: the formula. Layers side by side whose outputs are concatenated are one layer with as many outputs, and so
they are written here; no layer has a bias, as in the authors' code.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Gate, check_channels, check_integer, hidden_channels, identity_start, spatial_mean, zero_
from ._gates import Gates, over_input

__all__ = ["SENetV2"]


@register(
    "SENetV2",
    aliases=("SELayerV2", "SEAttentionV2", "SEV2", "SaELayer", "SENetv2"),
    paper="SENetV2: Aggregated dense layer for channelwise and global representations",
    arxiv="2311.10807",
    kind="channel",
    oracle="formula",
    use="SE with a hidden layer four times as wide, of four parts",
)
class SENetV2(nn.Module):
    """Squeeze aggregated excitation, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: r, each of the layers side by side has C // r outputs.
        cardinality: How many layers there are side by side.
        min_channels: Least width of each.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layer 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("channel")

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 32,
        cardinality: int = 4,
        min_channels: int = 1,
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        width = hidden_channels(check_channels(channels, "SENetV2"), reduction, min_channels)
        hidden = width * check_integer(cardinality, "cardinality")
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        return x * self.gate(self.fc2(self.act(self.fc1(spatial_mean(x)))))
