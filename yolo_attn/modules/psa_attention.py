"""YOLO11's C2PSA with any registered module for its self-attention, like the forks' C2PSA_SENetV2 and C2PSA_DAT.

Not from a paper: the block is YOLO11's, a split of the channels of which one half passes n units of attention and of a
feed-forward layer, each with a residual; the attention is that of https://arxiv.org/abs/1709.01507 or any other.

Equal to: the hosts' ``C2PSA`` whose ``attn`` of each unit is replaced by the module. Every other parameter keeps its
name, so what a checkpoint of the plain detector holds of them loads by name.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._conv import Conv, attention_of, check_widths, hidden_width
from ._gates import HOLDS, Gates

__all__ = ["C2PSAAttention"]


class Unit(nn.Module):
    """``y = x + attn(x)``, then ``y + ffn(y)``, (B, C, H, W) -> (B, C, H, W).

    Args:
        c: C.
        attn: The attention module.
    """

    def __init__(self, c: int, attn: nn.Module) -> None:
        super().__init__()
        self.attn = attn
        self.ffn = nn.Sequential(Conv(c, 2 * c), Conv(2 * c, c, act=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output."""
        x = x + self.attn(x)
        return x + self.ffn(x)


@register(
    "C2PSAAttention",
    aliases=("C2PSA_Attention",),
    paper="Squeeze-and-Excitation Networks in YOLO11's C2PSA",
    arxiv="1709.01507",
    kind="block",
    oracle="ultralytics C2PSA",
    use="in place of a C2PSA row (YOLO11): any attention for its self-attention; the rest loads by name",
)
class C2PSAAttention(nn.Module):
    """C2PSA with attention of choice, (B, c1, H, W) -> (B, c1, H, W).

    In a row: ``[-1, 2, C2PSAAttention, [1024, {module: SENetV2}]]``, or as forks write it ``C2PSA_SENetV2, [1024]``.

    Args:
        c1: Input channels.
        c2: Output channels, the same.
        n: Units.
        e: Channels of each half as a fraction of c1.
        module: A registered attention module, by name.
        options: Passed on to the attention module, e.g. ``reduction``.

    Raises:
        UnknownModuleError: No module has that name.
        ValueError: The numbers of input and output channels differ, a number below 1, an `e` that leaves no channel, or a
            `module` that does not keep the shape.
    """

    stands_for: ClassVar[str] = "C2PSA"
    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        e: float = 0.5,
        *,
        module: str | type = "SEAttention",
        **options: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_widths(name, c1=c1, c2=c2, n=n)
        if c1 != c2:
            raise ValueError(f"{name} keeps its channels, but {c1} arrive and {c2} are asked for")
        c = self.c = hidden_width(name, c1, e)
        self.cv1 = Conv(c1, 2 * c)
        self.cv2 = Conv(2 * c, c1)
        self.m = nn.Sequential(*(Unit(c, attention_of(module, c, name, options)) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        a, b = self.cv1(x).split(self.c, 1)
        return self.cv2(torch.cat((a, self.m(b)), 1))
