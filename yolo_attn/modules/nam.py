"""NAM: Normalization-based Attention Module, Liu, Shao, Teng, Hoffmann, https://arxiv.org/abs/2111.12419

A batch norm's scale tells how much its channel varies. ``M = sigmoid(W BN(x))`` with ``W_i = gamma_i / sum gamma``
(eq. 2, channel part); the output is ``x * M``.

Equal to: the formula, with |gamma| for gamma in W, as in the authors' code: a sum of both signs may be 0. Public code
takes the scales out of the graph when it forms W; the formula does not, so here gradients reach gamma through W too.
The paper's spatial part has one gamma for each pixel, which fixes the size of the map; it is left out, as in the
authors' code.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, Blend, check_channels, match
from ._gates import Gates, over_input

__all__ = ["NAM"]


@register(
    "NAM",
    aliases=("NAMAttention", "NAM_Attention"),
    paper="NAM: Normalization-based Attention Module",
    arxiv="2111.12419",
    kind="channel",
    oracle="formula (eq. 2)",
    use="no layer of its own but a batch norm; suits training with a sparsity penalty on the norms",
)
class NAM(nn.Module):
    """Normalization-based attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = over_input("value", ends=(0.0, 1.0))

    def __init__(self, channels: int, *, start: str = "paper") -> None:
        super().__init__()
        self.norm = BatchNorm(check_channels(channels, "NAM"))
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x` by its normalised self."""
        gamma = self.norm.weight.abs()
        weight = (gamma / gamma.sum(0, keepdim=True)).view(1, -1, 1, 1)
        y = x * match((weight * self.norm(x)).sigmoid(), x)
        return y if self.blend is None else self.blend(x, y)
