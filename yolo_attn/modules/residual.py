"""Residual blocks with attention: figure 3 of Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507

The attention weighs the residual branch before the sum: y = relu(attn(F(x)) + shortcut(x)), with F of ResNet
(https://arxiv.org/abs/1512.03385, figure 5): two 3x3 convolutions (basic block) or 1x1, 3x3, 1x1 (bottleneck). The
stride sits on the first 3x3 convolution, as in torchvision and timm; the paper's Caffe models put a bottleneck's on
its first 1x1, with the same parameters.

Equal to: ``timm.models.resnet.BasicBlock`` and ``Bottleneck`` with ``attn_layer="se"`` or ``"eca"``. Parameters carry
torchvision's and timm's names (``conv1``, ``bn1``, ``downsample.0``, ``se``), so their state dicts load by name.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._conv import attention_of, check_widths, fold_batch_norm, hidden_width
from ._gates import HOLDS, Gates

__all__ = ["SEBasicBlock", "SEBottleneck"]

PAPER = "Squeeze-and-Excitation Networks"
ARXIV = "1709.01507"


class _Residual(nn.Module):
    """Shortcut, attention and the last activation; subclasses own the residual branch."""

    bn1: nn.Module
    conv1: nn.Module
    depth: int  # convolutions of the residual branch

    def __init__(
        self, c1: int, c2: int, stride: int, module: str | type | None, branch: list[nn.Conv2d], options: dict[str, Any]
    ) -> None:
        super().__init__()
        for j, conv in enumerate(branch, 1):
            setattr(self, f"conv{j}", conv)
            setattr(self, f"bn{j}", nn.BatchNorm2d(conv.out_channels))
        self.depth = len(branch)
        self.relu = nn.ReLU(inplace=True)
        self.se = attention_of(module, c2, type(self).__name__, options)
        shortcut = [] if stride == 1 and c1 == c2 else [_conv(c1, c2, 1, stride), nn.BatchNorm2d(c2)]
        self.downsample = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(attn(F(x)) + shortcut(x))."""
        y = self.bn1(self.conv1(x))
        for j in range(2, self.depth + 1):
            y = getattr(self, f"bn{j}")(getattr(self, f"conv{j}")(self.relu(y)))
        return self.relu(self.se(y) + self.downsample(x))

    def fuse_bn(self) -> None:
        """Fold the batch normalizations into the convolutions, for inference."""
        for j in range(1, self.depth + 1):
            fold_batch_norm(self, f"conv{j}", f"bn{j}")
        if len(self.downsample):
            fold_batch_norm(self.downsample, "0", "1")


def _conv(c1: int, c2: int, k: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(c1, c2, k, stride, k // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as ResNet is trained
    return conv


@register(
    "SEBasicBlock",
    aliases=("SE_BasicBlock",),
    paper=PAPER,
    arxiv=ARXIV,
    kind="block",
    oracle="timm resnet.BasicBlock",
    use="the residual block of SE-ResNet-18 and -34",
)
class SEBasicBlock(_Residual):
    """Basic residual block with attention, (B, c1, H, W) -> (B, c2, H/stride, W/stride).

    Args:
        c1: Input channels.
        c2: Output channels.
        stride: Stride of the first convolution and of the shortcut.
        module: A registered attention module, by name; None for ResNet's own block.
        options: Passed on to the attention module, e.g. ``reduction``.
    """

    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self, c1: int, c2: int, stride: int = 1, *, module: str | type | None = "SEAttention", **options: Any
    ) -> None:
        check_widths(type(self).__name__, c1=c1, c2=c2, stride=stride)
        super().__init__(c1, c2, stride, module, [_conv(c1, c2, 3, stride), _conv(c2, c2, 3)], options)


@register(
    "SEBottleneck",
    aliases=("SE_Bottleneck", "SEResNetBottleneck"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="block",
    oracle="timm resnet.Bottleneck",
    use="the residual block of SE-ResNet-50, -101 and -152",
)
class SEBottleneck(_Residual):
    """Bottleneck residual block with attention, (B, c1, H, W) -> (B, c2, H/stride, W/stride).

    Args:
        c1: Input channels.
        c2: Output channels.
        stride: Stride of the 3x3 convolution and of the shortcut.
        e: Hidden channels as a fraction of c2; ResNet's 1/4.
        module: A registered attention module, by name; None for ResNet's own block.
        options: Passed on to the attention module, e.g. ``reduction``.
    """

    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        stride: int = 1,
        e: float = 0.25,
        *,
        module: str | type | None = "SEAttention",
        **options: Any,
    ) -> None:
        check_widths(type(self).__name__, c1=c1, c2=c2, stride=stride)
        c = hidden_width(type(self).__name__, c2, e)
        branch = [_conv(c1, c, 1), _conv(c, c, 3, stride), _conv(c, c2, 1)]
        super().__init__(c1, c2, stride, module, branch, options)
