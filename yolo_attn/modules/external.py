"""Beyond Self-attention: External Attention using Two Linear Layers for Visual Tasks, Guo, Liu, Mu, Hu,
https://arxiv.org/abs/2105.02358

Each position is compared with S learned keys that all images share (eq. 5), and receives the values that belong to
them (eq. 6). The comparison is normalized twice (eq. 7-9): a softmax over the positions for each key, then a division
by the sum over the keys for each position.

Equal to: the formula, both layers without bias. Projections, batch norm and residual around it are those of the
authors' segmentation head: give them rows of their own.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, check_channels, check_integer, full_precision, match, wide
from ._gates import MIXES, Gates

__all__ = ["ExternalAttention"]


@register(
    "ExternalAttention",
    aliases=("External", "EANet", "External_Attention", "ExternalAttn"),
    paper="Beyond Self-attention: External Attention using Two Linear Layers for Visual Tasks",
    arxiv="2105.02358",
    kind="spatial",
    oracle="formula (eq. 5-9)",
    use="global context at a cost that grows with H W alone: a memory instead of pairs of positions",
)
class ExternalAttention(nn.Module):
    """External attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        memory: S, number of keys and values.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: `memory` below 1, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(self, channels: int, *, memory: int = 64, start: str = "paper") -> None:
        super().__init__()
        c, s = check_channels(channels, "ExternalAttention"), check_integer(memory, "memory")
        self.mk = nn.Conv2d(c, s, 1, bias=False)
        self.mv = nn.Conv2d(s, c, 1, bias=False)
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the memory holds for each position of `x`."""
        score = self.mk(x)
        b, s, h, w = score.shape
        with full_precision(x):
            weight = wide(score).reshape(b, s, h * w).softmax(2).reshape(b, s, h, w)
            weight = match(weight / (weight.sum(1, keepdim=True) + 1e-9), x)
        y = self.mv(weight)
        return y if self.blend is None else self.blend(x, y)
