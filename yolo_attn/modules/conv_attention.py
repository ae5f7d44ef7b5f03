"""YOLO's convolution and YOLOv5's bottleneck with any registered module, like the forks' Conv_CBAM, CBAMBottleneck.

Not from a paper: attention follows the activation of the unit, and on the residual branch of the bottleneck, where
figure 3 of https://arxiv.org/abs/1709.01507 puts it.

Equal to: the hosts' ``Conv`` followed by the module, and YOLOv5's ``Bottleneck`` with the same weights while the
attention is the identity. Every parameter of those keeps its name, attention is added as ``attn``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import check_flag
from ._conv import Conv, attention_of, check_widths, hidden_width
from ._gates import HOLDS, Gates

__all__ = ["BottleneckAttention", "ConvAttention"]


@register(
    "ConvAttention",
    aliases=("Conv_Attention", "ConvAttn"),
    paper="Squeeze-and-Excitation Networks",
    arxiv="1709.01507",
    kind="block",
    oracle="ultralytics Conv followed by the module",
    use="in place of a Conv row: any attention behind its activation; Conv's weights load by name",
)
class ConvAttention(Conv):
    """Convolution, batch normalization, activation, attention: (B, c1, H, W) -> (B, c2, H/s, W/s).

    In a row: ``[-1, 1, ConvAttention, [256, 3, 2, {module: CBAM}]]``, or as forks write it ``Conv_CBAM, [256, 3, 2]``.

    Args:
        c1: Input channels.
        c2: Output channels.
        k: Kernel size.
        s: Stride.
        p: Padding. Default: keeps the size at stride 1.
        g: Groups.
        d: Dilation.
        act: True for the default activation, False for none.
        module: A registered attention module, by name; None for a plain Conv.
        options: Passed on to the attention module, e.g. ``reduction``.

    Raises:
        UnknownModuleError: No module has that name.
        ValueError: A number below 1, another `act`, or a `module` that does not keep the shape.
    """

    stands_for: ClassVar[str] = "Conv"  # the host's block that it is without attention
    gates: ClassVar[Gates] = HOLDS

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
        *,
        module: str | type | None = "SEAttention",
        **options: Any,
    ) -> None:
        name = type(self).__name__
        check_widths(name, c1=c1, c2=c2, k=k, s=s, g=g, d=d)
        super().__init__(c1, c2, k, s, p, g, d, act)
        self.attn = attention_of(module, c2, name, options)

    def forward(self, x: Tensor) -> Tensor:
        """Return attn(act(bn(conv(x))))."""
        return self.attn(super().forward(x))


@register(
    "BottleneckAttention",
    aliases=("Bottleneck_Attention", "BottleneckWithAttention"),
    paper="Squeeze-and-Excitation Networks (figure 3) in YOLOv5's Bottleneck",
    arxiv="1709.01507",
    kind="block",
    oracle="YOLOv5 Bottleneck",
    use="in place of a Bottleneck row of YOLOv5: attention on the residual branch; its weights load by name",
)
class BottleneckAttention(nn.Module):
    """YOLOv5's bottleneck with attention, (B, c1, H, W) -> (B, c2, H, W).

    In a row: ``[-1, 3, BottleneckAttention, [128, {module: CBAM}]]``, or as forks write it ``CBAMBottleneck, [128]``.

    Args:
        c1: Input channels.
        c2: Output channels.
        shortcut: Whether the input is added, where it has as many channels.
        g: Groups of the 3x3 convolution.
        e: Hidden channels as a fraction of c2.
        module: A registered attention module, by name; None for a plain Bottleneck.
        host_kernels: Of the two convolutions; the parser knows: ultralytics has (3, 3).
        options: Passed on to the attention module, e.g. ``reduction``.

    Raises:
        UnknownModuleError: No module has that name.
        ValueError: A number below 1, an `e` that leaves no channel or one that `g` does not divide, or a `module` that
            does not keep the shape.
    """

    stands_for: ClassVar[str] = "Bottleneck"
    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        module: str | type | None = "SEAttention",
        host_kernels: tuple[int, int] = (1, 3),
        **options: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_widths(name, c1=c1, c2=c2, g=g)
        hidden = hidden_width(name, c2, e, g)
        self.cv1 = Conv(c1, hidden, host_kernels[0])
        self.cv2 = Conv(hidden, c2, host_kernels[1], g=g)
        self.attn = attention_of(module, c2, name, options)
        self.add = check_flag(shortcut, f"{name}: shortcut") and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """Return the bottleneck of `x`."""
        y = self.attn(self.cv2(self.cv1(x)))
        return x + y if self.add else y
