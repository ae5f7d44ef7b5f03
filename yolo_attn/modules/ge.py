"""Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks, Hu, Shen, Albanie, Sun, Vedaldi,
https://arxiv.org/abs/1810.12348

Gather over windows of extent e, excite by nearest-neighbour interpolation back and a sigmoid. Three forms:
GE-theta- gathers by mean and has no parameters; GE-theta gathers by log2(e) depthwise 3 x 3 convolutions of stride 2
with batch norm; GE-theta+ (here the default) passes the gathered map through SE's two layers as well.

Equal to: ``timm.layers.GatherExcite`` (theta-, any extent), and the formula. The parametric forms need an extent:
over the global one the paper's depthwise kernel has the size of the map, which a detector does not know.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    BatchNorm,
    Blend,
    Gate,
    check_channels,
    check_integer,
    hidden_channels,
    identity_start,
    match,
    spatial_mean,
    zero_,
)
from ._gates import Depends, Gates, over_input

__all__ = ["GE"]


@register(
    "GE",
    aliases=("GatherExcite", "GEAttention"),
    paper="Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks",
    arxiv="1810.12348",
    kind="both",
    oracle="timm GatherExcite, formula",
    use="SE with a window in place of the whole map: context that still knows where it is",
)
class GE(nn.Module):
    """Gather-excite, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: r of the two layers of theta+.
        extent: e, even; a power of two for theta and theta+. 0 is the whole map, for theta- only.
        form: ``theta+``, ``theta`` or ``theta-``.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``; for theta- the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An extent that the form does not have, a reduction below 1, or an unknown `form`, `gate`, `start`.
    """

    identity: ClassVar[str] = "last layer 0, gate 2 * sigmoid (theta-: x + w (y - x), w = 0)"
    gates: ClassVar[Gates] = Depends(lambda m: over_input("value" if m.extent else "channel"))

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        extent: int = 8,
        form: str = "theta+",
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        check_channels(channels, "GE")
        if form not in ("theta+", "theta", "theta-"):
            raise ValueError(f"form must be 'theta+', 'theta' or 'theta-', got {form!r}")
        if check_integer(extent, "extent", 0) % 2:
            raise ValueError(f"extent must be even, or 0 for the whole map, got {extent}")
        learned = form != "theta-"
        if learned and (extent < 2 or extent & (extent - 1)):
            raise ValueError(f"the form {form} needs an extent of 2, 4, 8, ..., got {extent}")
        self.extent = extent
        steps: list[nn.Module] = []
        for k in range(extent.bit_length() - 1 if learned else 0):
            steps += [nn.ReLU()] if k else []
            steps += [nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False), BatchNorm(channels)]
        if learned:
            self.gather: nn.Module = nn.Sequential(*steps)
        elif extent:
            self.gather = nn.AvgPool2d(2 * extent - 1, extent, extent - 1, count_include_pad=False)
        else:
            self.gather = nn.Identity()
        hidden = hidden_channels(channels, reduction)
        mlp = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
        self.mlp = mlp if form == "theta+" else None
        self.gate = Gate(gate, start if learned else "paper")
        self.blend = None if learned else Blend.when(start)
        if identity_start(start) and learned:
            zero_(mlp[-1] if form == "theta+" else steps[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` by its surroundings."""
        z = self.gather(x) if self.extent else spatial_mean(x)
        if self.mlp is not None:
            z = self.mlp(z)
        if self.extent:
            z = nn.functional.interpolate(z, size=x.shape[2:])
        y = x * match(self.gate(z), x)
        return y if self.blend is None else self.blend(x, y)
