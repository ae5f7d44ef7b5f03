"""Attentional Feature Fusion, Dai, Gieseke, Oehmcke, Wu, Barnard, https://arxiv.org/abs/2009.14082

MS-CAM, multi-scale channel attention: two 1 x 1 convolutions with a bottleneck on every position (eq. 2) and the
same, with weights of its own, on the channel means; the sigmoid of their sum weighs the input (eq. 3), a gate for
each neuron. AFF fuses two maps by it: ``w = M(X + Y)``, ``Z = w X + (1 - w) Y`` (eq. 4). iAFF forms the sum inside M
by an AFF with weights of its own (eq. 5).

Equal to: the formula; layers as in the authors' code, 1 x 1 convolutions with bias, a batch norm after each. Their
code doubles Z, and its iAFF runs the second global branch through the weights of the first; the equations do neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, Gate, check_channels, hidden_channels, identity_start, spatial_mean, zero_
from ._gates import Gates, layer, over_input

__all__ = ["AFF", "IAFF", "MSCAM"]

PAPER = "Attentional Feature Fusion"
ARXIV = "2009.14082"


class Bottleneck(nn.Sequential):
    """1 x 1 convolution to `hidden`, batch norm, ReLU, 1 x 1 convolution back, batch norm, (B, C, H, W) kept."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(
            nn.Conv2d(channels, hidden, 1),
            BatchNorm(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            BatchNorm(channels),
        )


class Scales(nn.Module):
    """The weights of M: ``gate(local(x) + global(mean(x)))``, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C.
        reduction: Both bottlenecks have C // reduction channels.
        gate: ``sigmoid`` or ``hard_sigmoid``.
        start: ``identity`` starts the last norms at 0 and doubles the gate.
    """

    def __init__(self, channels: int, reduction: int, gate: str, start: str = "paper") -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.near = Bottleneck(channels, hidden)
        self.far = Bottleneck(channels, hidden)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.near[4], self.far[4])

    def forward(self, x: Tensor) -> Tensor:
        """Return the weight of each value of `x`."""
        # a sum as a difference: OpenCV 5.0 takes conv + x for a residual of equal shape
        return self.gate(self.near(x) - (-self.far(spatial_mean(x))))


@register(
    "MSCAM",
    aliases=("MS_CAM", "MSCAMAttention"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="both",
    oracle="formula (eq. 2, 3)",
    use="SE for the whole map and for each position; small objects",
)
class MSCAM(nn.Module):
    """Multi-scale channel attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: r, both bottlenecks have C // r channels.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last batch norms 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("value", ends=lambda m: (0.0, m.scales.gate.scale))

    def __init__(self, channels: int, *, reduction: int = 4, gate: str = "sigmoid", start: str = "paper") -> None:
        super().__init__()
        self.scales = Scales(check_channels(channels, "MSCAM"), reduction, gate, start)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value of `x`."""
        return x * self.scales(x)


def _pair(channels: Sequence[int], name: str) -> int:
    """Return the channels of two equal inputs.

    Raises:
        TypeError: One input.
        ValueError: Another number of inputs, or unequal ones.
    """
    if isinstance(channels, int) or not channels:
        raise TypeError(f"{name} fuses two inputs: its row's 'from' must be a list such as [-1, 6]")
    if len(channels) != 2 or channels[0] != channels[1]:
        raise ValueError(f"{name} fuses two inputs of equal channels, but its row's 'from' brings {list(channels)}")
    return channels[0]


@register(
    "AFF",
    aliases=("AttentionalFeatureFusion", "AFF_Add"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="fusion",
    oracle="formula (eq. 4)",
    use="in place of an addition of two maps: each value chooses between them",
)
class AFF(nn.Module):
    """Attentional feature fusion, two of (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: Channels of the two inputs, equal.
        reduction: r of M.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.

    Raises:
        TypeError: `channels` is one number: the row's `from` is not a list.
        ValueError: Not two inputs of equal channels, `reduction` below 1, or an unknown `gate`.
    """

    gates: ClassVar[Gates] = (layer("value", "scales", name="share", ends=(0.0, 1.0)),)

    def __init__(self, channels: Sequence[int], *, reduction: int = 4, gate: str = "sigmoid") -> None:
        super().__init__()
        self.scales = Scales(_pair(channels, "AFF"), reduction, gate)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Return the weighted mean of the two maps."""
        a, b = x
        return b + self.scales(a + b) * (a - b)


@register(
    "iAFF",
    aliases=("IAFF", "IterativeAttentionalFeatureFusion"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="fusion",
    oracle="formula (eq. 5)",
    use="AFF whose weights are found on an AFF of the two maps instead of their sum",
)
class IAFF(nn.Module):
    """Iterative attentional feature fusion, two of (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: Channels of the two inputs, equal.
        reduction: r of both M.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.

    Raises:
        TypeError: `channels` is one number: the row's `from` is not a list.
        ValueError: Not two inputs of equal channels, `reduction` below 1, or an unknown `gate`.
    """

    gates: ClassVar[Gates] = layer("value", "first", ends=(0.0, 1.0), name="first"), layer("value", "second", ends=(0.0, 1.0), name="second")

    def __init__(self, channels: Sequence[int], *, reduction: int = 4, gate: str = "sigmoid") -> None:
        super().__init__()
        c = _pair(channels, "iAFF")
        self.first = Scales(c, reduction, gate)
        self.second = Scales(c, reduction, gate)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Return the weighted mean of the two maps."""
        a, b = x
        first = b + self.first(a + b) * (a - b)
        return b + self.second(first) * (a - b)
