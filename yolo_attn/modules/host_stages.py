"""YOLO12's area-attention stage and the stages of RT-DETR's backbones and encoder, with attention inside.

No paper's: the blocks are the hosts' own, with attention on the residual branch of each inner unit, where figure 3 of
https://arxiv.org/abs/1709.01507 puts it.

Equal to: the hosts' blocks with the same weights, bit for bit, while the attention is the identity; every parameter of
those keeps its name. In AIFI the module stands in place of the self-attention, and the rest keeps its names.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ._base import check_flag, check_number
from ._conv import Conv, attention_of, check_widths, hidden_width
from ._gates import HOLDS, Gates
from ._units import ABlock, LightConv, ResNetBlock, position
from .blocks import C3kAttention, check_place, inside
from .host_blocks import block

__all__ = ["A2C2fAttention", "AIFIAttention", "HGBlockAttention", "ResNetLayerAttention"]


@block("A2C2f")
class A2C2fAttention(nn.Module):
    """YOLO12's A2C2f with attention in each inner block, (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Inner blocks.
        a2: Whether they are area-attention blocks, where it stands behind the feed-forward layer, or C3k.
        area: Stripes of the area attention.
        residual: Whether the input is added, with a learned weight.
        mlp_ratio: Hidden channels of the feed-forward layers as a multiple.
        e: Hidden channels as a fraction of c2.
        g: Groups of the C3k.
        shortcut: Whether their bottlenecks add their input.
        module: A registered attention module, by name; None for a plain A2C2f.
        place: ``inside`` each inner block, or once ``after`` the block.
        model_scale: The letter of the model, which the parser knows: l and x have the residual.
        options: Passed on to the attention module.
    """

    stands_for: ClassVar[str] = "A2C2f"
    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        a2: bool = True,
        area: int = 1,
        residual: bool = False,
        mlp_ratio: float = 2.0,
        e: float = 0.5,
        g: int = 1,
        shortcut: bool = True,
        *,
        module: str | type | None = "SEAttention",
        place: str = "inside",
        model_scale: str = "",
        **options: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_widths(name, c1=c1, c2=c2, n=n, g=g, **({"area": area} if a2 else {}))
        check_place(name, place)
        check_number(mlp_ratio, f"{name}: mlp_ratio", 0, above=True)
        if model_scale in ("l", "x"):
            residual, mlp_ratio = True, 1.2
        c = hidden_width(name, c2, e, g)
        if c % 32:
            raise ValueError(f"{name}: the {c} hidden channels must be a multiple of 32")
        make = inside(place, module, c, name, options)
        inner: dict[str, Any] = {"module": module, **options} if place == "inside" else {"module": None}
        self.cv1 = Conv(c1, c)
        self.cv2 = Conv((1 + n) * c, c2)
        self.gamma = nn.Parameter(0.01 * torch.ones(c2)) if a2 and residual else None
        self.m = nn.ModuleList(
            nn.Sequential(*(ABlock(c, c // 32, mlp_ratio, area, make()) for _ in range(2)))
            if a2
            else C3kAttention(c, c, 2, shortcut, g, **inner)
            for _ in range(n)
        )
        self.attn = attention_of(module, c2, name, options) if place == "after" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = [self.cv1(x)]
        for m in self.m:
            y.append(m(y[-1]))
        out = self.attn(self.cv2(torch.cat(y, 1)))
        return out if self.gamma is None else x + self.gamma.view(1, -1, 1, 1) * out


def _third(channels: int, cm: int, c2: int, *_: Any, **__: Any) -> int:
    return c2


@block("HGBlock", takes="channels", out_channels=_third)
class HGBlockAttention(nn.Module):
    """HGNet's block of RT-DETR with attention on its branch, (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: Input channels.
        cm: Middle channels.
        c2: Output channels, not scaled.
        k: Kernel size.
        lightconv: Whether the convolutions are light ones.
        shortcut: Whether the input is added, where it has as many channels.
        act: The activation; ReLU when absent.
        repeats: Convolutions: the row's number.
        module: A registered attention module, by name; None for a plain HGBlock.
        options: Passed on to the attention module.
    """

    stands_for: ClassVar[str] = "HGBlock"
    verbatim: ClassVar[bool] = True
    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        cm: int,
        c2: int,
        k: int = 3,
        lightconv: bool = False,
        shortcut: bool = False,
        act: nn.Module | None = None,
        *,
        repeats: int = 6,
        module: str | type | None = "SEAttention",
        **options: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_widths(name, c1=c1, cm=cm, c2=c2, k=k, repeats=repeats)
        act = nn.ReLU() if act is None else act
        light = check_flag(lightconv, f"{name}: lightconv")
        widths = [c1, *([cm] * (repeats - 1))]
        self.m = nn.ModuleList(LightConv(c, cm, k, act) if light else Conv(c, cm, k, act=act) for c in widths)
        self.sc = Conv(c1 + repeats * cm, c2 // 2, act=act)
        self.ec = Conv(c2 // 2, c2, act=act)
        self.add = check_flag(shortcut, f"{name}: shortcut") and c1 == c2
        self.attn = attention_of(module, c2, name, options)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = [x]
        for m in self.m:
            y.append(m(y[-1]))
        out = self.attn(self.ec(self.sc(torch.cat(y, 1))))
        return out + x if self.add else out


def _stage(c1: int, c2: int, s: int = 1, is_first: bool = False, n: int = 1, e: int = 4, **_: Any) -> int:
    return c2 if is_first else e * c2


@block("ResNetLayer", takes="", out_channels=_stage)
class ResNetLayerAttention(nn.Module):
    """ultralytics' ResNet stage with attention in each block, (B, c1, H, W) -> (B, e c2, H/s, W/s).

    Args:
        c1: Input channels; the row states them, as the host's.
        c2: Middle channels, or those of the output of the first layer.
        s: Stride.
        is_first: Whether it is the stem, a convolution and a pooling, which attention then follows.
        n: Blocks.
        e: Output channels as a multiple of c2.
        module: A registered attention module, by name; None for a plain ResNetLayer.
        options: Passed on to the attention module.
    """

    stands_for: ClassVar[str] = "ResNetLayer"
    verbatim: ClassVar[bool] = True
    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        s: int = 1,
        is_first: bool = False,
        n: int = 1,
        e: int = 4,
        *,
        module: str | type | None = "SEAttention",
        **options: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_widths(name, c1=c1, c2=c2, s=s, n=n, e=e)
        self.is_first = check_flag(is_first, f"{name}: is_first")
        self.attn: nn.Module = nn.Identity()
        if self.is_first:
            self.layer = nn.Sequential(Conv(c1, c2, 7, 2, 3), nn.MaxPool2d(3, 2, 1))
            self.attn = attention_of(module, c2, name, options)
            return
        widths = [c1, *([e * c2] * (n - 1))]
        self.layer = nn.Sequential(
            *(
                ResNetBlock(c, c2, s if i == 0 else 1, e, attention_of(module, e * c2, name, options))
                for i, c in enumerate(widths)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the stage's output."""
        return cast(Tensor, self.attn(self.layer(x)))


@block("AIFI", takes="channels")
class AIFIAttention(nn.Module):
    """RT-DETR's encoder layer with any module for its self-attention, (B, c1, H, W) -> (B, c1, H, W).

    Args:
        c1: Channels.
        cm: Hidden channels of the feed-forward layers.
        num_heads: Of the host's self-attention, which is not here.
        dropout: Of the feed-forward layers.
        module: A registered attention module, by name.
        options: Passed on to the attention module.
    """

    stands_for: ClassVar[str] = "AIFI"
    verbatim: ClassVar[bool] = True
    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        cm: int = 2048,
        num_heads: int = 8,
        dropout: float = 0.0,
        *,
        module: str | type = "SEAttention",
        **options: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_widths(name, c1=c1, cm=cm)
        if c1 % 4:
            raise ValueError(f"{name}: the {c1} channels must be a multiple of 4 for the embedding of positions")
        self.ma = attention_of(module, c1, name, options)
        self.fc1 = nn.Linear(c1, cm)
        self.fc2 = nn.Linear(cm, c1)
        self.norm1 = nn.LayerNorm(c1)
        self.norm2 = nn.LayerNorm(c1)
        self.dropout = nn.Dropout(check_number(dropout, f"{name}: dropout", 0))
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer of `x`."""
        b, c, h, w = x.shape
        placed = x + position(x).to(x.dtype).transpose(1, 2).reshape(1, c, h, w)
        y = self.norm1((x + self.dropout1(self.ma(placed))).flatten(2).transpose(1, 2))
        y = self.norm2(y + self.dropout2(self.fc2(self.dropout(self.act(self.fc1(y))))))
        return y.transpose(1, 2).reshape(b, c, h, w)
