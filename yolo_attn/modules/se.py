"""Squeeze-and-Excitation Networks, Hu, Shen, Albanie, Sun, Wu, https://arxiv.org/abs/1709.01507

Squeeze (eq. 2): the mean of each channel over height and width. Excitation (eq. 3): two fully connected layers
with a ReLU between, then a sigmoid. Scale (eq. 4): each channel times its weight. The layers are 1x1
convolutions on (B, C, 1, 1), the same arithmetic as fully connected ones, so that no reshape is needed.

Equal to: ``timm.layers.SEModule(c, rd_ratio=1/16, rd_divisor=1, bias=False)``, and with ``bias=True`` to
``torchvision.ops.SqueezeExcitation(c, c // 16)``.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Gate, check_channels, check_flag, hidden_channels, identity_start, spatial_max, spatial_mean, zero_
from ._gates import Gates, over_input

__all__ = ["SEAttention"]


@register(
    "SEAttention",
    aliases=(
        "SE",
        "SELayer",
        "SEBlock",
        "SE_Block",
        "SEModule",
        "SqueezeExcite",
        "SqueezeExcitation",
        "se_block",
        "SENet",
        "SeNet",
    ),
    paper="Squeeze-and-Excitation Networks",
    arxiv="1709.01507",
    kind="channel",
    oracle="timm SEModule, torchvision SqueezeExcitation",
    use="the first to try: re-weights channels by global context",
)
class SEAttention(nn.Module):
    """Squeeze-and-excitation, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: r of eq. 3; the hidden layer has C // r channels. Adds 2C^2/r weights.
        min_channels: Least width of the hidden layer.
        bias: Whether the two layers have biases; the paper's eq. 3 has none.
        squeeze: ``avg`` (the paper's) or ``max`` (table 11 of the journal version).
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `squeeze`, `gate` or `start`.
    """

    identity: ClassVar[str] = "last layer 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("channel")

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        min_channels: int = 1,
        bias: bool = False,
        squeeze: str = "avg",
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        check_channels(channels, "SEAttention")
        check_flag(bias, "bias")
        if squeeze not in ("avg", "max"):
            raise ValueError(f"squeeze must be 'avg' or 'max', got {squeeze!r}")
        hidden = hidden_channels(channels, reduction, min_channels)
        self.squeeze = squeeze
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        z = spatial_mean(x) if self.squeeze == "avg" else spatial_max(x)
        return x * self.gate(self.fc2(self.act(self.fc1(z))))
