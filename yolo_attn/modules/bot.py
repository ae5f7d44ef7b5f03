"""Bottleneck Transformers for Visual Recognition, Srinivas, Lin, Parmar, Shlens, Abbeel, Vaswani,
https://arxiv.org/abs/2101.11605

MHSA: attention of every position to all of them, in heads, the scores ``q k^T + q r^T`` (figure 4) with r the sum of
a learned encoding for the distance along the height and one along the width. As in the authors' code q is divided by
the root of the channels of a head, for both terms. BoT3 is its form in YOLO forks: a C3 with MHSA for the 3 x 3
convolution of each bottleneck, without the encodings.

Equal to: ``timm.layers.BottleneckAttn(c, feat_size=(height, width), scale_pos_embed=True)`` at that size. The
encodings reach `height` and `width` positions far; on a larger map larger distances count as the largest, so any size
runs. Forks' BoT3 holds a fully connected layer that it never uses; there is none here.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, attend, check_channels, check_flag, check_integer, fit_groups
from ._gates import HOLDS, MIXES, Gates
from ._local import RelativePositions, heads_of
from ._stage import C3With

__all__ = ["MHSA", "BoT3"]

PAPER = "Bottleneck Transformers for Visual Recognition"
ARXIV = "2101.11605"


@register(
    "MHSA",
    aliases=("MHSAttention", "BottleneckAttn", "BoTAttention", "BoTNetMHSA"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="spatial",
    oracle="timm BottleneckAttn",
    use="self-attention with relative positions; for small maps, P5 at most",
    # the field's `[width, height, heads]`; a number alone is the heads, as in `[1024, 8]`
    positional=("heads", "width height", "width height heads", "width height heads position"),
)
class MHSA(nn.Module):
    """Multi-head self-attention, (B, C, H, W) -> (B, C, H, W). Time grows with the square of H W.

    Args:
        channels: C, the channels of the input.
        width: How far the encodings reach along the width.
        height: How far they reach along the height.
        heads: Number of heads; lowered until it divides the channels.
        position: Whether there are encodings.
        bias: Whether the layers of q, k and v have biases.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(
        self,
        channels: int,
        *,
        width: int = 20,
        height: int = 20,
        heads: int = 4,
        position: bool = True,
        bias: bool = False,
        start: str = "paper",
    ) -> None:
        super().__init__()
        c = check_channels(channels, "MHSA")
        self.heads = fit_groups(c, heads, "heads")
        check_flag(bias, "bias")
        self.query = nn.Conv2d(c, c, 1, bias=bias)
        self.key = nn.Conv2d(c, c, 1, bias=bias)
        self.value = nn.Conv2d(c, c, 1, bias=bias)
        height, width = check_integer(height, "height"), check_integer(width, "width")
        positions = check_flag(position, "position")
        self.position = RelativePositions(c // self.heads, height, width) if positions else None
        self.scale = (c // self.heads) ** -0.5
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each position of `x` to all."""
        b, c, h, w = x.shape
        q, k, v = (heads_of(f(x), self.heads) for f in (self.query, self.key, self.value))
        q = q * self.scale
        y = attend(q, k, v, None if self.position is None else self.position(q, (h, w), (h, w)))
        y = y.transpose(2, 3).reshape(b, c, h, w)
        return y if self.blend is None else self.blend(x, y)


@register(
    "BoT3",
    aliases=("BoT3Attention", "BOT3"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="block",
    oracle="formula (figure 4) in ultralytics C3",
    use="in place of the last C3 row of a backbone: self-attention for the 3 x 3 convolutions",
)
class BoT3(C3With):
    """C3 with self-attention for its 3 x 3 convolutions, (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Bottlenecks.
        e: Hidden channels as a fraction of c2.
        e2: 1, the only ratio of widths inside a bottleneck; forks write it.
        w: How far position encodings reach along the width, where there are any.
        h: The same along the height.
        heads: Number of heads; lowered until it divides the channels.
        position: Whether there are encodings; forks have none.
        bias: Whether the layers of q, k and v have biases, as forks have them.
        shortcut: Whether the bottlenecks add their input.

    Raises:
        TypeError: A width that is a list or not an integer.
        ValueError: A number below 1, another `e2`, or an `e` that leaves no channel.
    """

    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        e: float = 0.5,
        e2: float = 1,
        w: int = 20,
        h: int = 20,
        *,
        heads: int = 4,
        position: bool = False,
        bias: bool = True,
        shortcut: bool = True,
    ) -> None:
        if e2 != 1:
            raise ValueError(f"BoT3: e2 must be 1, got {e2!r}; the attention keeps the channels")

        def attention(c: int) -> nn.Module:
            return MHSA(c, width=w, height=h, heads=heads, position=position, bias=bias)

        super().__init__(c1, c2, n, shortcut, e, attention)
