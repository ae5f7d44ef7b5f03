"""YOLO blocks with attention inside: Conv, C3, C2f and C3k2, each with any registered module.

Not from a paper: the blocks are YOLOv5's C3 (a cross-stage partial stage, https://arxiv.org/abs/1911.11929), YOLOv8's
C2f and YOLO11's C3k2, with attention on the residual branch of each bottleneck, where figure 3 of
https://arxiv.org/abs/1709.01507 puts it, or once after the block.

Equal to: the hosts' ``Conv``, ``C3``, ``C2f`` and ``C3k2`` with the same weights, bit for bit, while the attention is
the identity. Every parameter of those keeps its name, attention is added as ``m.0.attn`` or ``attn``, so a checkpoint of
the plain detector loads by name.
"""

from __future__ import annotations

from typing import Any, Callable, ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import check_class, register
from ._base import check_flag
from ._conv import Conv, attention_of, check_widths, hidden_width
from ._gates import HOLDS, Gates
from .conv_attention import ConvAttention

__all__ = [
    "C3CA",
    "C3CBAM",
    "C3ECA",
    "C3SE",
    "C2fAttention",
    "C3Attention",
    "C3k2Attention",
    "SEConv",
]

PLACES = ("inside", "after")


@register(
    "SEConv",
    aliases=("ConvSE", "Conv_SE"),
    paper="Squeeze-and-Excitation Networks",
    arxiv="1709.01507",
    kind="block",
    oracle="ultralytics Conv followed by SEAttention",
    use="ConvAttention with SE",
)
class SEConv(ConvAttention):
    """Convolution with squeeze-and-excitation, (B, c1, H, W) -> (B, c2, H/s, W/s).

    Args:
        c1: Input channels.
        c2: Output channels.
        k: Kernel size.
        s: Stride.
        p: Padding. Default: keeps the size at stride 1.
        g: Groups.
        d: Dilation.
        act: True for the default activation, False for none.
        options: Passed on to ``SEAttention``, e.g. ``reduction``.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        d: int = 1,
        act: bool | nn.Module = True,
        **options: Any,
    ) -> None:
        super().__init__(c1, c2, k, s, p, g, d, act, module="SEAttention", **options)


class AttentionBottleneck(nn.Module):
    """YOLO's bottleneck with attention on its residual branch: x + attn(cv2(cv1(x))), shape kept.

    Args:
        c: Channels.
        shortcut: Whether x is added.
        g: Groups of the second convolution.
        k: Kernel sizes of the two convolutions.
        attn: The attention module, or None.
        e: Channels between the convolutions as a fraction of c.
    """

    def __init__(
        self, c: int, shortcut: bool, g: int, k: tuple[Any, Any], attn: nn.Module | None, e: float = 1.0
    ) -> None:
        super().__init__()
        hidden = hidden_width(type(self).__name__, c, e, g)
        self.cv1 = Conv(c, hidden, k[0])
        self.cv2 = Conv(hidden, c, k[1], g=g)
        self.attn = nn.Identity() if attn is None else attn
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the bottleneck of `x`."""
        y = self.attn(self.cv2(self.cv1(x)))
        return x + y if self.add else y


@register(
    "C3Attention",
    aliases=("C3_Attention", "C3Attn"),
    paper="Squeeze-and-Excitation Networks (figure 3) in YOLOv5's C3",
    arxiv="1709.01507",
    kind="block",
    oracle="ultralytics C3",
    use="in place of a C3 row: attention in each bottleneck; C3's weights load by name, no row shifts",
)
class C3Attention(nn.Module):
    """C3 with attention, (B, c1, H, W) -> (B, c2, H, W). In a row: ``[-1, 3, C3Attention, [256, {module: ECA}]]``.

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Bottlenecks.
        shortcut: Whether the bottlenecks add their input.
        g: Groups of the 3x3 convolutions.
        e: Hidden channels as a fraction of c2.
        module: A registered attention module, by name; None for a plain C3.
        place: ``inside`` each bottleneck, or once ``after`` the block.
        options: Passed on to the attention module, e.g. ``reduction``.

    Raises:
        UnknownModuleError: No module has that name.
        ValueError: An unknown `place`, a number below 1, an `e` that leaves no channel or one that `g` does not divide,
            or a `module` that does not keep the shape.
    """

    stands_for: ClassVar[str] = "C3"
    kernels: ClassVar[tuple[Any, Any]] = (1, 3)  # of the two convolutions of each bottleneck
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
        c = _check(name, c1, c2, n, shortcut, g, e, place)
        self.cv1 = Conv(c1, c)
        self.cv2 = Conv(c1, c)
        self.cv3 = Conv(2 * c, c2)
        self.m = self.units(c, n, shortcut, g, inside(place, module, c, name, options))
        self.attn = attention_of(module, c2, name, options) if place == "after" else nn.Identity()

    def units(self, c: int, n: int, shortcut: bool, g: int, make: Callable[[], nn.Module]) -> nn.Module:
        """What stands between the first and the last convolution: bottlenecks, each with attention that `make` makes."""
        return nn.Sequential(*(AttentionBottleneck(c, shortcut, g, self.kernels, make()) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return self.attn(self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1)))


def inside(
    place: str, module: str | type | None, c: int, name: str, options: dict[str, Any]
) -> Callable[[], nn.Module]:
    """Return what makes the attention of one inner unit, nothing where it stands after the block."""
    return lambda: attention_of(module, c, name, options) if place == "inside" else nn.Identity()


def _check(name: str, c1: int, c2: int, n: int, shortcut: bool, g: int, e: float, place: str) -> int:
    """Check the arguments of a block and return its hidden channels."""
    check_widths(name, c1=c1, c2=c2, n=n, g=g)
    check_flag(shortcut, f"{name}: shortcut")
    check_place(name, place)
    return hidden_width(name, c2, e, g)


def check_place(name: str, place: str) -> None:
    """Refuse another word for the place of attention.

    Raises:
        ValueError: Names both.
    """
    if place not in PLACES:
        raise ValueError(f"{name}: place must be 'inside' (each bottleneck) or 'after' (the block), got {place!r}")


@register(
    "C3SE",
    aliases=("C3_SE",),
    paper="Squeeze-and-Excitation Networks",
    arxiv="1709.01507",
    kind="block",
    oracle="ultralytics C3",
    use="C3Attention with SE",
)
class C3SE(C3Attention):
    """:class:`C3Attention` with squeeze-and-excitation."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5, **options: Any
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e, module="SEAttention", **options)


@register(
    "C3ECA",
    aliases=("C3_ECA",),
    paper="ECA-Net: Efficient Channel Attention for Deep CNNs",
    arxiv="1910.03151",
    kind="block",
    oracle="ultralytics C3",
    use="C3Attention with ECA, a few weights a bottleneck",
)
class C3ECA(C3Attention):
    """:class:`C3Attention` with efficient channel attention."""

    attention: ClassVar[str] = "ECA"

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5, **options: Any
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e, module="ECA", **options)


@register(
    "C3CBAM",
    aliases=("C3_CBAM", "CBAMC3"),
    paper="CBAM: Convolutional Block Attention Module",
    arxiv="1807.06521",
    kind="block",
    oracle="ultralytics C3",
    use="C3Attention with CBAM: channels and positions",
)
class C3CBAM(C3Attention):
    """:class:`C3Attention` with the convolutional block attention module."""

    attention: ClassVar[str] = "CBAM"

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5, **options: Any
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e, module="CBAM", **options)


@register(
    "C3CA",
    aliases=("C3_CA", "C3CoordAtt"),
    paper="Coordinate Attention for Efficient Mobile Network Design",
    arxiv="2103.02907",
    kind="block",
    oracle="ultralytics C3",
    use="C3Attention with coordinate attention: where along height and width",
)
class C3CA(C3Attention):
    """:class:`C3Attention` with coordinate attention."""

    attention: ClassVar[str] = "CoordAtt"

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5, **options: Any
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e, module="CoordAtt", **options)


@register(
    "C2fAttention",
    aliases=("C2f_Attention",),
    paper="Squeeze-and-Excitation Networks (figure 3) in YOLOv8's C2f",
    arxiv="1709.01507",
    kind="block",
    oracle="ultralytics C2f",
    use="in place of a C2f row (YOLOv8): attention in each bottleneck; C2f's weights load by name",
)
class C2fAttention(nn.Module):
    """C2f with attention, (B, c1, H, W) -> (B, c2, H, W).

    In a row: ``[-1, 3, C2fAttention, [128, True, {module: SE}]]``.

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Bottlenecks.
        shortcut: Whether the bottlenecks add their input.
        g: Groups of the 3x3 convolutions.
        e: Hidden channels as a fraction of c2.
        module: A registered attention module, by name; None for a plain C2f.
        place: ``inside`` each bottleneck, or once ``after`` the block.
        options: Passed on to the attention module, e.g. ``reduction``.

    Raises:
        UnknownModuleError: No module has that name.
        ValueError: An unknown `place`, a number below 1, an `e` that leaves no channel or one that `g` does not divide,
            or a `module` that does not keep the shape.
    """

    stands_for: ClassVar[str] = "C2f"
    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = False,
        g: int = 1,
        e: float = 0.5,
        *,
        module: str | type | None = "SEAttention",
        place: str = "inside",
        **options: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        c = _check(name, c1, c2, n, shortcut, g, e, place)
        self.cv1 = Conv(c1, 2 * c)
        self.cv2 = Conv((2 + n) * c, c2)
        self.m = nn.ModuleList(
            AttentionBottleneck(c, shortcut, g, (3, 3), inside(place, module, c, name, options)()) for _ in range(n)
        )
        self.attn = attention_of(module, c2, name, options) if place == "after" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = list(self.cv1(x).chunk(2, 1))
        for bottleneck in self.m:
            y.append(bottleneck(y[-1]))
        return self.attn(self.cv2(torch.cat(y, 1)))


class C3kAttention(C3Attention):
    """C3k with attention, the C3 of 3x3 convolutions that YOLO11 puts into its C3k2: (B, c1, H, W) -> (B, c2, H, W)."""

    kernels: ClassVar[tuple[Any, Any]] = (3, 3)


@register(
    "C3k2Attention",
    aliases=("C3k2_Attention",),
    paper="Squeeze-and-Excitation Networks (figure 3) in YOLO11's C3k2",
    arxiv="1709.01507",
    kind="block",
    oracle="ultralytics C3k2",
    use="in place of a C3k2 row (YOLO11, YOLO26): attention in each bottleneck; C3k2's weights load by name",
)
class C3k2Attention(C2fAttention):
    """C3k2 with attention, (B, c1, H, W) -> (B, c2, H, W).

    In a row: ``[-1, 2, C3k2Attention, [256, False, 0.25, {module: SE}]]``.

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Inner blocks.
        c3k: Whether they are C3k of two bottlenecks each, instead of single bottlenecks.
        e: Hidden channels as a fraction of c2.
        attn: Of the host's block, its own attention; with it there is no form of this one.
        g: Groups of the 3x3 convolutions.
        shortcut: Whether the bottlenecks add their input.
        module: A registered attention module, by name; None for a plain C3k2.
        place: ``inside`` each bottleneck, or once ``after`` the block.
        model_scale: The letter of the model, which the parser knows: at m, l and x every C3k2 has `c3k`.
        options: Passed on to the attention module, e.g. ``reduction``.

    Raises:
        UnknownModuleError: No module has that name.
        ValueError: As :class:`C2fAttention`, and `attn`.
    """

    stands_for: ClassVar[str] = "C3k2"

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        c3k: bool = False,
        e: float = 0.5,
        attn: bool = False,
        g: int = 1,
        shortcut: bool = True,
        *,
        module: str | type | None = "SEAttention",
        place: str = "inside",
        model_scale: str = "",
        **options: Any,
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e, module=module, place=place, **options)
        name = type(self).__name__
        if check_flag(attn, f"{name}: attn"):
            raise ValueError(f"{name}: a C3k2 with attn has attention of its own; leave that row as it is")
        c = hidden_width(name, c2, e, g)
        inner: dict[str, Any] = {"module": module, **options} if place == "inside" else {"module": None}

        def block() -> nn.Module:
            if check_flag(c3k, f"{name}: c3k") or model_scale in ("m", "l", "x"):
                return C3kAttention(c, c, 2, shortcut, g, **inner)
            return AttentionBottleneck(c, shortcut, g, (3, 3), inside(place, module, c, name, options)(), e=0.5)

        self.m = nn.ModuleList(block() for _ in range(n))


check_class(AttentionBottleneck)
check_class(C3kAttention)
