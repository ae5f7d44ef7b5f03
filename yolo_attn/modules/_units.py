"""What the hosts' further blocks are made of, under the hosts' names, with attention on the residual branch.

Equal to: the units of the same name of ultralytics and YOLOv5 with the same weights, bit for bit, while the attention is
the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry.registry import check_class
from ._conv import Conv

__all__ = [
    "CIB",
    "ABlock",
    "GhostBottleneck",
    "LightConv",
    "RepBottleneck",
    "RepConv",
    "ResNetBlock",
    "TransformerBlock",
]


class RepConv(nn.Module):
    """RepVGG's pair of a 3x3 and a 1x1 convolution, (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: Input channels.
        c2: Output channels.
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.act = nn.SiLU()
        self.conv1 = Conv(c1, c2, 3, act=False)
        self.conv2: Conv | None = Conv(c1, c2, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of the sum."""
        y = self.conv1(x)
        return self.act(y if self.conv2 is None else y + self.conv2(x))

    def fuse_bn(self) -> None:
        """Fold both batch normalizations, then the small kernel into the large one."""
        if self.conv2 is None:
            return
        self.conv1.fuse_bn()
        self.conv2.fuse_bn()
        large, small = self.conv1.conv, self.conv2.conv
        if type(large) is nn.Conv2d and type(small) is nn.Conv2d and isinstance(self.conv1.bn, nn.Identity):
            assert large.bias is not None and small.bias is not None
            large.weight.data += nn.functional.pad(small.weight.data, [1, 1, 1, 1])
            large.bias.data += small.bias.data
            self.conv2 = None


class RepBottleneck(nn.Module):
    """A bottleneck whose first convolution is a :class:`RepConv`, ``x + attn(cv2(cv1(x)))``.

    Args:
        c: Channels.
        shortcut: Whether x is added.
        g: Groups of the second convolution.
        attn: The attention module.
    """

    def __init__(self, c: int, shortcut: bool, g: int, attn: nn.Module) -> None:
        super().__init__()
        self.cv1 = RepConv(c, c)
        self.cv2 = Conv(c, c, 3, g=g)
        self.attn = attn
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the bottleneck of `x`."""
        y = self.attn(self.cv2(self.cv1(x)))
        return x + y if self.add else y


class GhostConv(nn.Module):
    """Half of the channels by a convolution, half by a cheap one on those (1911.11907)."""

    def __init__(self, c1: int, c2: int, act: bool = True) -> None:
        super().__init__()
        c = c2 // 2
        self.cv1 = Conv(c1, c, 1, act=act)
        self.cv2 = Conv(c, c, 5, g=c, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return both halves."""
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(nn.Module):
    """``x + attn(conv(x))`` with two ghost convolutions, (B, c, H, W) -> (B, c, H, W).

    Args:
        c: Channels.
        attn: The attention module.
    """

    def __init__(self, c: int, attn: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Sequential(GhostConv(c, c // 2), nn.Identity(), GhostConv(c // 2, c, act=False))
        self.shortcut = nn.Identity()
        self.attn = attn

    def forward(self, x: Tensor) -> Tensor:
        """Return the bottleneck of `x`."""
        return self.attn(self.conv(x)) + self.shortcut(x)


class RepVGGDW(nn.Module):
    """A 7x7 and a 3x3 depthwise convolution, added (YOLOv10's)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = Conv(c, c, 7, g=c, act=False)
        self.conv1: Conv | None = Conv(c, c, 3, g=c, act=False)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of the sum."""
        y = self.conv(x)
        return self.act(y if self.conv1 is None else y + self.conv1(x))


class CIB(nn.Module):
    """YOLOv10's compact inverted block, ``x + attn(cv1(x))``, (B, c, H, W) -> (B, c, H, W).

    Args:
        c: Channels.
        shortcut: Whether x is added.
        lk: Whether the middle convolution has a large kernel.
        attn: The attention module.
    """

    def __init__(self, c: int, shortcut: bool, lk: bool, attn: nn.Module) -> None:
        super().__init__()
        middle = RepVGGDW(2 * c) if lk else Conv(2 * c, 2 * c, 3, g=2 * c)
        self.cv1 = nn.Sequential(Conv(c, c, 3, g=c), Conv(c, 2 * c), middle, Conv(2 * c, c), Conv(c, c, 3, g=c))
        self.attn = attn
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of `x`."""
        y = self.attn(self.cv1(x))
        return x + y if self.add else y


class TransformerLayer(nn.Module):
    """YOLOv5's transformer layer, without norms, (N, B, c) -> (N, B, c)."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(c, c, bias=False)
        self.k = nn.Linear(c, c, bias=False)
        self.v = nn.Linear(c, c, bias=False)
        self.ma = nn.MultiheadAttention(c, heads)
        self.fc1 = nn.Linear(c, c, bias=False)
        self.fc2 = nn.Linear(c, c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer of `x`."""
        x = self.ma(self.q(x), self.k(x), self.v(x))[0] + x
        return self.fc2(self.fc1(x)) + x


class TransformerBlock(nn.Module):
    """YOLOv5's transformer, then attention, (B, c, H, W) -> (B, c, H, W).

    Args:
        c: Channels.
        heads: Heads.
        n: Layers.
        attn: The attention module.
    """

    def __init__(self, c: int, heads: int, n: int, attn: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(c, c)
        self.tr = nn.Sequential(*(TransformerLayer(c, heads) for _ in range(n)))
        self.attn = attn

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of `x`."""
        p = x.flatten(2).permute(2, 0, 1)
        return self.attn(self.tr(p + self.linear(p)).permute(1, 2, 0).reshape(x.shape))


class LightConv(nn.Module):
    """HGNet's 1x1 convolution and depthwise one, (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(self, c1: int, c2: int, k: int, act: nn.Module) -> None:
        super().__init__()
        self.conv1 = Conv(c1, c2, 1, act=False)
        self.conv2 = Conv(c2, c2, k, g=c2, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return both on `x`."""
        return self.conv2(self.conv1(x))


class ResNetBlock(nn.Module):
    """A ResNet block, ``relu(attn(cv3(cv2(cv1(x)))) + shortcut(x))``, (B, c1, H, W) -> (B, e c2, H/s, W/s).

    Args:
        c1: Input channels.
        c2: Channels of the middle convolution.
        s: Stride.
        e: Output channels as a multiple of c2.
        attn: The attention module.
    """

    def __init__(self, c1: int, c2: int, s: int, e: int, attn: nn.Module) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2)
        self.cv2 = Conv(c2, c2, 3, s, 1)
        self.cv3 = Conv(c2, e * c2, act=False)
        same = s == 1 and c1 == e * c2
        self.shortcut = nn.Identity() if same else nn.Sequential(Conv(c1, e * c2, 1, s, act=False))
        self.attn = attn

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of `x`."""
        return nn.functional.relu(self.attn(self.cv3(self.cv2(self.cv1(x)))) + self.shortcut(x))


class AAttn(nn.Module):
    """YOLO12's area attention (2502.12524): self-attention within each of `area` stripes of the map."""

    def __init__(self, c: int, heads: int, area: int) -> None:
        super().__init__()
        self.area, self.heads, self.head_dim = area, heads, c // heads
        inner = self.inner = self.head_dim * heads
        self.qkv = Conv(c, 3 * inner, act=False)
        self.proj = Conv(inner, c, act=False)
        self.pe = Conv(inner, inner, 7, 1, 3, g=inner, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention of `x`."""
        b, _, h, w = x.shape
        n = h * w
        qkv = self.qkv(x).flatten(2).transpose(1, 2)
        stripes, length = b, n
        if self.area > 1:
            stripes, length = b * self.area, n // self.area
            qkv = qkv.reshape(stripes, length, 3 * self.inner)
        q, k, v = qkv.view(stripes, length, self.heads, 3 * self.head_dim).permute(0, 2, 3, 1).split(self.head_dim, 2)
        weight = ((q * self.head_dim**-0.5).transpose(-2, -1) @ k).softmax(-1)
        y, v = (v @ weight.transpose(-2, -1)).permute(0, 3, 1, 2), v.permute(0, 3, 1, 2)
        y, v = (t.reshape(b, h, w, self.inner).permute(0, 3, 1, 2).contiguous() for t in (y, v))
        return self.proj(y + self.pe(v))


class ABlock(nn.Module):
    """YOLO12's area-attention block, with the module on the branch of its two convolutions.

    Args:
        c: Channels.
        heads: Heads.
        ratio: Hidden channels as a multiple of c.
        area: Stripes of the area attention.
        attn: The attention module.
    """

    def __init__(self, c: int, heads: int, ratio: float, area: int, attn: nn.Module) -> None:
        super().__init__()
        self.attn = AAttn(c, heads, area)
        self.mlp = nn.Sequential(Conv(c, int(c * ratio)), Conv(int(c * ratio), c, act=False))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.trunc_normal_(m.weight, std=0.02)
        self.mlp_attn = attn

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of `x`."""
        x = x + self.attn(x)
        return x + self.mlp_attn(self.mlp(x))


def position(x: Tensor, temperature: float = 10000.0) -> Tensor:
    """Return the sine and cosine embedding of rows and columns that AIFI adds, (1, H W, C) for (B, C, H, W)."""
    c, h, w = x.shape[1:]
    seed = x.new_zeros(1, dtype=torch.float32)
    rows, columns = torch.meshgrid(torch.arange(h).type_as(seed), torch.arange(w).type_as(seed), indexing="ij")
    omega = torch.arange(c // 4).type_as(seed) / (c // 4)
    omega = 1.0 / (temperature**omega)
    y, z = rows.flatten()[..., None] @ omega[None], columns.flatten()[..., None] @ omega[None]
    return torch.cat([torch.sin(y), torch.cos(y), torch.sin(z), torch.cos(z)], 1)[None]


for _cls in (RepConv, RepBottleneck, GhostConv, GhostBottleneck, RepVGGDW, CIB, TransformerLayer, TransformerBlock,
             LightConv, ResNetBlock, AAttn, ABlock):  # fmt: skip
    check_class(_cls)
