"""Weighted feature fusion of EfficientDet (BiFPN), Tan, Pang, Le, https://arxiv.org/abs/1911.09070

Fast normalized fusion, section 3.3: O = sum_i w_i / (eps + sum_j w_j) * I_i, one learned scalar a input, kept at
w_i >= 0 by a ReLU, eps = 0.0001. The weights start equal. ``WeightedConcat`` uses the same weights and concatenates
instead of adding, which is how YOLO necks, built on Concat, usually adopt it.

Equal to: the formula. The inputs of a sum must agree in shape; resample with ``nn.Upsample`` rows and match channels
with 1x1 ``Conv`` rows, as the paper does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import check_number
from ._gates import Gates

__all__ = ["WeightedConcat", "WeightedFusion"]

PAPER = "EfficientDet: Scalable and Efficient Object Detection"
ARXIV = "1911.09070"


class _Normalized(nn.Module):
    """The weights of fast normalized fusion, one for each input."""

    def __init__(self, channels: Sequence[int], eps: float) -> None:
        super().__init__()
        name = type(self).__name__
        if isinstance(channels, int) or not channels:
            raise TypeError(f"{name} fuses several inputs: its row's 'from' must be a list such as [-1, 6]")
        self.eps = check_number(eps, f"{name}: eps", 0, above=True)
        if self.eps >= 0.1:
            raise ValueError(f"{name}: eps must lie between 0 and 0.1, got {eps!r}; widths come from the graph")
        self.weight = nn.Parameter(torch.ones(len(channels)))

    def normalized(self) -> tuple[Tensor, ...]:
        """Return w_i / (eps + sum_j w_j), each of one number."""
        w = self.weight.clamp(min=0)
        return (w / (self.eps + w.sum(0, keepdim=True))).split(1)

    def extra_repr(self) -> str:
        """Show the number of inputs."""
        return f"inputs={self.weight.numel()}, eps={self.eps}"


@register(
    "WeightedFusion",
    aliases=("FastNormalizedFusion", "BiFPNFusion", "BiFPN_Add", "BiFPN_Add2", "BiFPN_Add3"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="fusion",
    oracle="formula (section 3.3)",
    use="adds feature maps of one shape by learned weights, as BiFPN does",
    positional=("-",),
)
class WeightedFusion(_Normalized):
    """Weighted sum of feature maps, list of (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: Channels of each input, all equal.
        eps: epsilon of section 3.3.

    Raises:
        TypeError: `channels` is one number: the row's `from` is not a list.
        ValueError: Unequal channels, or `eps` outside 0 to 0.1.
    """

    gates: ClassVar[Gates] = "its weights are learned numbers, the same for every image"

    def __init__(self, channels: Sequence[int], *, eps: float = 1e-4) -> None:
        super().__init__(channels, eps)
        if len(set(channels)) != 1:
            raise ValueError(f"WeightedFusion adds its inputs, but they have {list(channels)} channels")

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum."""
        w = self.normalized()
        total = x[0] * w[0]
        for one, weight in zip(x[1:], w[1:]):
            total = total + one * weight
        return total


@register(
    "WeightedConcat",
    aliases=("BiFPN_Concat", "BiFPN_Concat2", "BiFPN_Concat3", "Concat_BiFPN", "Concat_bifpn"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="fusion",
    oracle="formula (section 3.3)",
    use="in place of a Concat row: each input scaled by its learned weight",
    out_channels=lambda channels, *_, **__: sum(channels),
    positional=("d",),
)
class WeightedConcat(_Normalized):
    """Concatenation of weighted feature maps, list of (B, C_i, H, W) -> (B, sum C_i, H, W).

    Args:
        channels: Channels of each input.
        d: The dimension, as a Concat row states it; 1 is the only one.
        eps: epsilon of section 3.3.

    Raises:
        TypeError: `channels` is one number: the row's `from` is not a list.
        ValueError: Another `d`, or `eps` outside 0 to 0.1.
    """

    gates: ClassVar[Gates] = "its weights are learned numbers, the same for every image"

    def __init__(self, channels: Sequence[int], d: int = 1, *, eps: float = 1e-4) -> None:
        super().__init__(channels, eps)
        if d != 1:
            raise ValueError(f"WeightedConcat concatenates channels, dimension 1; got {d!r}")

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Return the weighted inputs, concatenated."""
        return torch.cat([one * weight for one, weight in zip(x, self.normalized())], 1)
