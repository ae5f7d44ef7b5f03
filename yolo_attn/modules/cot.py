"""Contextual Transformer Networks for Visual Recognition, Li, Yao, Pan, Mei, https://arxiv.org/abs/2107.12292

Static context: a k x k grouped convolution of the keys, with batch norm and ReLU. It and the queries, which are the
input, pass two 1 x 1 convolutions that give each position k x k weights; the values under the kernel, weighted by them,
are the dynamic context. The two contexts are fused by attention over the channels, a softmax of two after a
bottleneck on the mean of their sum.

Equal to: the formula with the authors' layers, ``CoT``: groups 4, a bottleneck of C / 2, weights shared by 8 channels
with a group norm on them, batch norm and SiLU on the dynamic context. Groups and shares are lowered until they divide the
channels. ``CoTAttention`` is what forks of YOLO know by that name and what their CoT3 holds, a C3 with it for the
3 x 3 convolution of each bottleneck: each channel's k x k weights of a position are averaged, a softmax over all
positions makes them weights of the values, and the contexts are added. Averaging weights of a layer is averaging what
it gives, and costs k x k times less.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    BatchNorm,
    Blend,
    GroupNorm,
    check_channels,
    check_kernel,
    fit_groups,
    full_precision,
    match,
    spatial_mean,
    traced,
    wide,
)
from ._gates import HOLDS, MIXES, Gates, layer, softmax
from ._local import near_of
from ._stage import C3With

__all__ = ["CoT", "CoT3", "CoTAttention"]

PAPER = "Contextual Transformer Networks for Visual Recognition"
ARXIV = "2107.12292"
SHARE = 8  # channels that share the weights of the local products


@register(
    "CoT",
    aliases=("CotLayer", "CoTLayer", "CoTBlock"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="both",
    oracle="formula (authors' layers)",
    use="in the place of a 3 x 3 convolution: its kernel is computed anew at each position",
)
class CoT(nn.Module):
    """Contextual transformer, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input, at least 2.
        kernel_size: k, odd.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: Fewer than 2 channels, an even kernel, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = (layer("channel", "fuse", name="contexts", through=softmax(lambda m: 2, outer=False)),)

    def __init__(self, channels: int, *, kernel_size: int = 3, start: str = "paper") -> None:
        super().__init__()
        c, k = check_channels(channels, "CoT"), check_kernel(kernel_size)
        if c < 2:
            raise ValueError(f"CoT halves its channels and needs at least 2, got {c}")
        self.kernel_size, planes = k, math.gcd(c, max(c // SHARE, 1))
        self.share = c // planes
        self.key_embed = nn.Sequential(
            nn.Conv2d(c, c, k, padding=k // 2, groups=fit_groups(c, 4), bias=False), BatchNorm(c), nn.ReLU()
        )
        self.embed_x = nn.Conv2d(c, c // 2, 1, bias=False)  # of the concatenated input and static context:
        self.embed_k = nn.Conv2d(c, c // 2, 1, bias=False)  # one layer in two parts
        self.embed = nn.Sequential(
            BatchNorm(c // 2), nn.ReLU(), nn.Conv2d(c // 2, k * k * planes, 1), GroupNorm(planes, k * k * planes)
        )
        self.value_embed = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), BatchNorm(c))
        self.norm = BatchNorm(c)
        self.act = nn.SiLU()
        hidden = max(c // 2, 32)
        self.fuse = nn.Sequential(nn.Conv2d(c, hidden, 1), BatchNorm(hidden), nn.ReLU(), nn.Conv2d(hidden, 2 * c, 1))
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fused contexts of `x`."""
        static = self.key_embed(x)
        weight = self.embed(self.embed_x(x) + self.embed_k(static))
        dynamic = self.act(self.norm(self.local(self.value_embed(x), weight)))
        score = self.fuse(spatial_mean(static + dynamic))
        pair = score.reshape(x.shape[0], x.shape[1], 2, 1)
        share = (pair[:, :, :1] - pair[:, :, 1:]).sigmoid()  # the softmax of two
        y = static + share * (dynamic - static)
        return y if self.blend is None else self.blend(x, y)

    def local(self, value: Tensor, weight: Tensor) -> Tensor:
        """Return the sum under the kernel, each of the k x k values by its weight."""
        (b, c, h, w), k, taps = value.shape, self.kernel_size, self.kernel_size * self.kernel_size
        if not traced():  # quicker than to copy the neighbours, but no converter takes every ninth channel
            padded = nn.functional.pad(value, (k // 2, k // 2, k // 2, k // 2))
            moved = (padded[:, :, tap // k : tap // k + h, tap % k : tap % k + w] for tap in range(taps))
            terms = (t * weight[:, tap::taps].repeat(1, self.share, 1, 1) for tap, t in enumerate(moved))
            return functools.reduce(torch.add, terms)
        near = near_of(value, self.kernel_size).reshape(b, self.share, -1, h * w)
        return (near * weight.reshape(b, 1, -1, h * w)).reshape(b, c, -1, h * w).sum(2).reshape(b, c, h, w)


@register(
    "CoTAttention",
    aliases=("CotAttention", "COTAttention"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="both",
    oracle="formula (of the forks)",
    use="what forks of YOLO call so: a 3 x 3 context plus values weighed over all positions",
)
class CoTAttention(nn.Module):
    """The forks' contextual attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input, at least 2.
        kernel_size: k, odd.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: Fewer than 2 channels, an even kernel, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = MIXES

    def __init__(self, channels: int, *, kernel_size: int = 3, start: str = "paper") -> None:
        super().__init__()
        c, k = check_channels(channels, "CoTAttention"), check_kernel(kernel_size)
        if c < 2:
            raise ValueError(f"CoTAttention halves its channels and needs at least 2, got {c}")
        self.channels, self.taps = c, k * k
        self.key_embed = nn.Sequential(
            nn.Conv2d(c, c, k, padding=k // 2, groups=fit_groups(c, 4), bias=False), BatchNorm(c), nn.ReLU()
        )
        self.value_embed = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), BatchNorm(c))
        self.embed_k = nn.Conv2d(c, c // 2, 1, bias=False)  # of the concatenated static context and input:
        self.embed_x = nn.Conv2d(c, c // 2, 1, bias=False)  # one layer in two parts
        self.norm = BatchNorm(c // 2)
        self.act = nn.ReLU()
        self.attn = nn.Conv2d(c // 2, k * k * c, 1)
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both contexts of `x`."""
        static = self.key_embed(x)
        z = self.act(self.norm(self.embed_k(static) + self.embed_x(x)))
        weight = self.attn.weight.reshape(self.channels, self.taps, -1).mean(1).reshape(self.channels, -1, 1, 1)
        bias = self.attn.bias.reshape(self.channels, self.taps).mean(1)  # type: ignore[union-attr]  # it has one
        score = nn.functional.conv2d(z, weight, bias)
        b, c, h, w = score.shape
        with full_precision(x):
            share = match(wide(score).reshape(b, c, h * w).softmax(2).reshape(b, c, h, w), x)
        y = static + share * self.value_embed(x)
        return y if self.blend is None else self.blend(x, y)


@register(
    "CoT3",
    aliases=("CoT3Attention", "COT3"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="block",
    oracle="formula (of the forks) in ultralytics C3",
    use="in place of a C3 row: contextual attention for the 3 x 3 convolutions",
)
class CoT3(C3With):
    """C3 with contextual attention for its 3 x 3 convolutions, (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Bottlenecks.
        shortcut: Whether the bottlenecks add their input.
        g: 1; forks write it and do not use it.
        e: Hidden channels as a fraction of c2.
        kernel_size: Kernel size of the attention, odd.
        form: ``fork`` (``CoTAttention``) or ``paper`` (``CoT``).

    Raises:
        TypeError: A width that is a list or not an integer.
        ValueError: A number below 1, another `g` or `form`, or an `e` that leaves no channel.
    """

    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        kernel_size: int = 3,
        form: str = "fork",
    ) -> None:
        if g != 1:
            raise ValueError(f"CoT3: g must be 1, got {g!r}; its groups are the attention's own")
        if form not in ("fork", "paper"):
            raise ValueError(f"CoT3: form must be 'fork' or 'paper', got {form!r}")
        attention = CoT if form == "paper" else CoTAttention
        super().__init__(c1, c2, n, shortcut, e, lambda c: attention(c, kernel_size=kernel_size))
