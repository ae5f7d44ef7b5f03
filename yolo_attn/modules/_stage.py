"""The C3 stage whose bottlenecks hold attention in place of the 3 x 3 convolution, as BoT3 and CoT3 have it."""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor, nn

from ._base import check_flag
from ._conv import Conv, check_widths, hidden_width

__all__ = ["C3With"]


class Unit(nn.Module):
    """``x + attn(cv1(x))``, (B, C, H, W) -> (B, C, H, W).

    Args:
        c: C.
        shortcut: Whether x is added.
        attn: The attention module.
    """

    def __init__(self, c: int, shortcut: bool, attn: nn.Module) -> None:
        super().__init__()
        self.cv1 = Conv(c, c)
        self.cv2 = attn
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3With(nn.Module):
    """C3 with attention for the 3 x 3 convolutions of its bottlenecks, (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Bottlenecks.
        shortcut: Whether the bottlenecks add their input.
        e: Hidden channels as a fraction of c2.
        attn: Makes the attention module for so many channels.
    """

    def __init__(self, c1: int, c2: int, n: int, shortcut: bool, e: float, attn: Callable[[int], nn.Module]) -> None:
        super().__init__()
        name = type(self).__name__
        check_widths(name, c1=c1, c2=c2, n=n)
        check_flag(shortcut, f"{name}: shortcut")
        c = hidden_width(name, c2, e)
        self.cv1 = Conv(c1, c)
        self.cv2 = Conv(c1, c)
        self.cv3 = Conv(2 * c, c2)
        self.m = nn.Sequential(*(Unit(c, shortcut, attn(c)) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))
