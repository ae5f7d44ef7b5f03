"""The hosts' further feature blocks with attention inside: what YOLOv8-ghost, v9, v10, RT-DETR and older YAMLs are made of.

No paper's: the blocks are the hosts' own, with attention on the residual branch of each inner unit, where figure 3 of
https://arxiv.org/abs/1709.01507 puts it, or once behind the block.

Equal to: the hosts' blocks with the same weights, bit for bit, while the attention is the identity; every parameter of
those keeps its name.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import check_class, register
from ._base import check_flag
from ._conv import Conv, attention_of, check_widths, hidden_width
from ._gates import HOLDS, Gates
from ._units import CIB, GhostBottleneck, RepBottleneck, RepConv, TransformerBlock
from .blocks import AttentionBottleneck, C2fAttention, C3Attention, check_place, inside

__all__ = [
    "C2Attention",
    "C2fCIBAttention",
    "C3GhostAttention",
    "C3TRAttention",
    "C3xAttention",
    "ELAN1Attention",
    "RepC3Attention",
    "RepNCSPELAN4Attention",
    "block",
]


def block(name: str, **more: Any) -> Any:
    """Register the form of a host's block with attention inside."""
    return register(
        f"{name}Attention",
        aliases=(f"{name}_Attention",),
        paper=f"Squeeze-and-Excitation Networks (figure 3) in the hosts' {name}",
        arxiv="1709.01507",
        kind="block",
        oracle=f"ultralytics {name}",
        use=f"in place of a {name} row; its weights load by name",
        lists=False,
        **more,
    )


@block("C3x")
class C3xAttention(C3Attention):
    """C3x, the C3 of crossed 1x3 and 3x1 convolutions, with attention; arguments as :class:`C3Attention`."""

    stands_for: ClassVar[str] = "C3x"
    kernels: ClassVar[tuple[Any, Any]] = ((1, 3), (3, 1))


@block("C3TR")
class C3TRAttention(C3Attention):
    """C3TR, the C3 of a transformer, with attention behind the transformer; arguments as :class:`C3Attention`."""

    stands_for: ClassVar[str] = "C3TR"

    def units(self, c: int, n: int, shortcut: bool, g: int, make: Any) -> nn.Module:
        """The transformer."""
        return TransformerBlock(c, 4, n, make())


@block("C3Ghost")
class C3GhostAttention(C3Attention):
    """C3Ghost, the C3 of ghost bottlenecks, with attention in each; arguments as :class:`C3Attention`."""

    stands_for: ClassVar[str] = "C3Ghost"

    def units(self, c: int, n: int, shortcut: bool, g: int, make: Any) -> nn.Module:
        """The ghost bottlenecks."""
        return nn.Sequential(*(GhostBottleneck(c, make()) for _ in range(n)))


class RepCSPAttention(C3Attention):
    """RepCSP, the C3 of RepVGG bottlenecks that :class:`RepNCSPELAN4Attention` holds."""

    def units(self, c: int, n: int, shortcut: bool, g: int, make: Any) -> nn.Module:
        """The bottlenecks."""
        return nn.Sequential(*(RepBottleneck(c, shortcut, g, make()) for _ in range(n)))


@block("C2fCIB")
class C2fCIBAttention(C2fAttention):
    """C2fCIB of YOLOv10 with attention in each compact inverted block, (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Inner blocks.
        shortcut: Whether they add their input.
        lk: Whether they have a large kernel.
        g: Groups, which the host's block does not use.
        e: Hidden channels as a fraction of c2.
        module: A registered attention module, by name; None for a plain C2fCIB.
        place: ``inside`` each inner block, or once ``after`` the block.
        options: Passed on to the attention module.
    """

    stands_for: ClassVar[str] = "C2fCIB"

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = False,
        lk: bool = False,
        g: int = 1,
        e: float = 0.5,
        *,
        module: str | type | None = "SEAttention",
        place: str = "inside",
        **options: Any,
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e, module=module, place=place, **options)
        name = type(self).__name__
        check_flag(lk, f"{name}: lk")
        c = hidden_width(name, c2, e, g)
        make = inside(place, module, c, name, options)
        self.m = nn.ModuleList(CIB(c, shortcut, lk, make()) for _ in range(n))


@block("C2")
class C2Attention(nn.Module):
    """C2 with attention in each bottleneck, (B, c1, H, W) -> (B, c2, H, W); for the arguments see :class:`C2fAttention`."""

    stands_for: ClassVar[str] = "C2"
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
        module: str | type | None = "SEAttention",
        place: str = "inside",
        **options: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_widths(name, c1=c1, c2=c2, n=n, g=g)
        check_place(name, place)
        c = hidden_width(name, c2, e, g)
        make = inside(place, module, c, name, options)
        self.cv1 = Conv(c1, 2 * c)
        self.cv2 = Conv(2 * c, c2)
        self.m = nn.Sequential(*(AttentionBottleneck(c, shortcut, g, (3, 3), make()) for _ in range(n)))
        self.attn = attention_of(module, c2, name, options) if place == "after" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        a, b = self.cv1(x).chunk(2, 1)
        return self.attn(self.cv2(torch.cat((self.m(a), b), 1)))


@block("RepC3")
class RepC3Attention(nn.Module):
    """RepC3 of RT-DETR with attention behind its RepVGG units, (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Units.
        e: Hidden channels as a fraction of c2.
        module: A registered attention module, by name; None for a plain RepC3.
        place: ``inside``, on the branch of the units, or once ``after`` the block.
        options: Passed on to the attention module.
    """

    stands_for: ClassVar[str] = "RepC3"
    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 3,
        e: float = 1.0,
        *,
        module: str | type | None = "SEAttention",
        place: str = "inside",
        **options: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_widths(name, c1=c1, c2=c2, n=n)
        check_place(name, place)
        c = hidden_width(name, c2, e)
        self.cv1 = Conv(c1, c)
        self.cv2 = Conv(c1, c)
        self.m = nn.Sequential(*(RepConv(c, c) for _ in range(n)))
        self.cv3 = Conv(c, c2) if c != c2 else nn.Identity()
        self.inside = place == "inside"
        self.attn = attention_of(module, c if self.inside else c2, name, options)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = self.m(self.cv1(x))
        if self.inside:
            return self.cv3(self.attn(y) + self.cv2(x))
        return self.attn(self.cv3(y + self.cv2(x)))


@block("RepNCSPELAN4")
class RepNCSPELAN4Attention(nn.Module):
    """YOLOv9's RepNCSPELAN4 with attention in each bottleneck, (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: Input channels.
        c2: Output channels.
        c3: Channels of the first convolution, halved.
        c4: Channels of the two branches.
        n: Bottlenecks of each branch.
        module: A registered attention module, by name; None for the plain block.
        place: ``inside`` each bottleneck, or once ``after`` the block.
        options: Passed on to the attention module.
    """

    stands_for: ClassVar[str] = "RepNCSPELAN4"
    verbatim: ClassVar[bool] = True
    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        c3: int,
        c4: int,
        n: int = 1,
        *,
        module: str | type | None = "SEAttention",
        place: str = "inside",
        **options: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_widths(name, c1=c1, c2=c2, c3=c3, c4=c4, n=n)
        check_place(name, place)
        self.cv1 = Conv(c1, c3)
        self.cv2 = self.branch(c3 // 2, c4, n, place, module, options)
        self.cv3 = self.branch(c4, c4, n, place, module, options)
        self.cv4 = Conv(c3 + 2 * c4, c2)
        self.attn = attention_of(module, c2, name, options) if place == "after" else nn.Identity()

    def branch(self, c1: int, c2: int, n: int, place: str, module: Any, options: dict[str, Any]) -> nn.Module:
        """One of the two branches."""
        inner: dict[str, Any] = {"module": module, **options} if place == "inside" else {"module": None}
        return nn.Sequential(RepCSPAttention(c1, c2, n, **inner), Conv(c2, c2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = list(self.cv1(x).chunk(2, 1))
        for branch in (self.cv2, self.cv3):
            y.append(branch(y[-1]))
        return self.attn(self.cv4(torch.cat(y, 1)))


class Attended(Conv):
    """A convolution with attention behind it, whose weights keep their names."""

    def __init__(self, c1: int, c2: int, k: int, attn: nn.Module) -> None:
        super().__init__(c1, c2, k)
        self.attn = attn

    def forward(self, x: Tensor) -> Tensor:
        """Return attn(conv(x))."""
        return self.attn(super().forward(x))


@block("ELAN1")
class ELAN1Attention(RepNCSPELAN4Attention):
    """YOLOv9's ELAN1 with attention behind the convolution of each branch; arguments as the former, without n."""

    stands_for: ClassVar[str] = "ELAN1"

    def __init__(
        self,
        c1: int,
        c2: int,
        c3: int,
        c4: int,
        *,
        module: str | type | None = "SEAttention",
        place: str = "inside",
        **options: Any,
    ) -> None:
        super().__init__(c1, c2, c3, c4, module=module, place=place, **options)

    def branch(self, c1: int, c2: int, n: int, place: str, module: Any, options: dict[str, Any]) -> nn.Module:
        """One of the two branches."""
        return Attended(c1, c2, 3, inside(place, module, c2, type(self).__name__, options)())


check_class(RepCSPAttention)
check_class(Attended)
