"""RFAConv: Innovating Spatial Attention and Standard Convolutional Operation, Zhang, Liu, Yang, Song, Song, Li,
https://arxiv.org/abs/2304.03198

A convolution whose kernel is not shared by all positions: the k x k values under it are first unfolded by a grouped
convolution with batch norm and ReLU, so that every position has a field of its own, k times as high and wide; they
are weighted; a convolution of kernel and stride k then sums each field. RFAConv weighs by a softmax over each field,
of a grouped 1 x 1 convolution on the mean of the k x k values. RFCBAMConv weighs by CBAM's two halves: an SE gate of
the channels from the input, and a sigmoid of a 3 x 3 convolution on the mean and maximum over the channels of the
fields. RFCAConv weighs by coordinate attention on the fields (https://arxiv.org/abs/2103.02907); CAConv is a plain
convolution after it.

Equal to: the formula; layers as in the authors' code. The last convolution is the hosts' unit, as in their YOLO code:
no bias, batch norm, activation. Unfolding a field is a pixel shuffle. Average pooling counts the zeros around the
map, as theirs does.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, check_integer, check_kernel, full_precision, match, mean, softmax_over, spatial_mean, wide
from ._conv import Conv, attention_of, check_act, check_widths
from ._gates import HOLDS, Gates, layer, sigmoid, softmax

__all__ = ["CAConv", "RFAConv", "RFCAConv", "RFCBAMConv"]

PAPER = "RFAConv: Innovating Spatial Attention and Standard Convolutional Operation"
ARXIV = "2304.03198"


def _fields(channels: int, k: int, s: int) -> nn.Sequential:
    """The k x k values under the kernel at each position, (B, C, H, W) -> (B, C k k, H/s, W/s)."""
    n = channels * k * k
    return nn.Sequential(nn.Conv2d(channels, n, k, s, k // 2, groups=channels, bias=False), BatchNorm(n), nn.ReLU())


@register(
    "RFAConv",
    aliases=("RFA_Conv", "Conv_RFA", "ConvRFA"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="block",
    oracle="formula",
    use="in place of a Conv row of kernel 3: the kernel is weighed anew at each position",
)
class RFAConv(nn.Module):
    """Receptive-field attention convolution, (B, c1, H, W) -> (B, c2, H/s, W/s).

    Args:
        c1: Input channels.
        c2: Output channels.
        k: Kernel size, odd.
        s: Stride.
        act: True for the default activation, False for none.

    Raises:
        TypeError: A width that is a list or not an integer.
        ValueError: A number below 1, an even kernel, or another `act`.
    """

    gates: ClassVar[Gates] = (layer("value", "get_weight", name="fields", through=softmax(lambda m: m.k * m.k, outer=False)),)

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, act: bool | nn.Module = True) -> None:
        super().__init__()
        check_widths("RFAConv", c1=c1, c2=c2, k=k, s=s)
        check_act("RFAConv", act)
        self.k, self.channels = check_kernel(k, "RFAConv: k"), c1
        self.get_weight = nn.Sequential(nn.AvgPool2d(k, s, k // 2), nn.Conv2d(c1, c1 * k * k, 1, groups=c1, bias=False))
        self.generate = _fields(c1, k, s)
        self.conv = Conv(c1, c2, k, k, 0, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the weighted fields."""
        fields = self.generate(x)
        score = self.get_weight(x)
        b, _, h, w = fields.shape
        with full_precision(x):
            weight = wide(score).reshape(b, self.channels, self.k * self.k, h * w)
            weight = softmax_over(weight, 2).reshape(b, -1, h, w)
        return self.conv(nn.functional.pixel_shuffle(fields * match(weight, fields), self.k))


@register(
    "RFCBAMConv",
    aliases=("RFCBAM", "RFCBAM_Conv", "Conv_RFCBAM"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="block",
    oracle="formula",
    use="RFAConv that weighs channels and positions as CBAM does",
)
class RFCBAMConv(nn.Module):
    """Receptive-field CBAM convolution, (B, c1, H, W) -> (B, c2, H/s, W/s).

    Args:
        c1: Input channels.
        c2: Output channels.
        k: Kernel size, odd.
        s: Stride.
        act: True for the default activation, False for none.
        width: Hidden channels of the SE gate; the authors' 16, however many c1 is.

    Raises:
        TypeError: A width that is a list or not an integer.
        ValueError: A number below 1, an even kernel, or another `act`.
    """

    gates: ClassVar[Gates] = layer("channel", "fc2", through=sigmoid), layer("spatial", "get_weight", through=sigmoid)

    def __init__(
        self, c1: int, c2: int, k: int = 3, s: int = 1, act: bool | nn.Module = True, *, width: int = 16
    ) -> None:
        super().__init__()
        check_widths("RFCBAMConv", c1=c1, c2=c2, k=k, s=s)
        check_act("RFCBAMConv", act)
        self.k = check_kernel(k, "RFCBAMConv: k")
        hidden = check_integer(width, "RFCBAMConv: width")
        self.generate = _fields(c1, k, s)
        self.fc1 = nn.Conv2d(c1, hidden, 1, bias=False)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, c1, 1, bias=False)
        self.get_weight = nn.Conv2d(2, 1, 3, padding=1, bias=False)
        self.conv = Conv(c1, c2, k, k, 0, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the weighted fields."""
        channel = self.fc2(self.act(self.fc1(spatial_mean(x)))).sigmoid()
        fields = nn.functional.pixel_shuffle(self.generate(x), self.k) * channel
        position = self.get_weight(torch.cat((fields.amax(1, keepdim=True), mean(fields, 1)), 1)).sigmoid()
        return self.conv(fields * position)


@register(
    "RFCAConv",
    aliases=("RFCA_Conv", "RFCA"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="block",
    oracle="formula",
    use="RFAConv that weighs rows and columns of the fields as coordinate attention does",
)
class RFCAConv(nn.Module):
    """Receptive-field coordinate attention convolution, (B, c1, H, W) -> (B, c2, H/s, W/s).

    Args:
        c1: Input channels.
        c2: Output channels.
        k: Kernel size, odd.
        s: Stride.
        act: True for the default activation, False for none.
        options: Passed on to ``CoordAtt``, e.g. ``reduction``.

    Raises:
        TypeError: A width that is a list or not an integer.
        ValueError: A number below 1, an even kernel, or another `act`.
    """

    gates: ClassVar[Gates] = HOLDS

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, act: bool | nn.Module = True, **options: Any) -> None:
        super().__init__()
        check_widths("RFCAConv", c1=c1, c2=c2, k=k, s=s)
        check_act("RFCAConv", act)
        self.k = check_kernel(k, "RFCAConv: k")
        self.generate = _fields(c1, k, s)
        self.attn = attention_of("CoordAtt", c1, "RFCAConv", options)
        self.conv = Conv(c1, c2, k, k, 0, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the weighted fields."""
        return self.conv(self.attn(nn.functional.pixel_shuffle(self.generate(x), self.k)))


@register(
    "CAConv",
    aliases=("CA_Conv",),
    paper=PAPER,
    arxiv=ARXIV,
    kind="block",
    oracle="CoordAtt followed by ultralytics Conv",
    use="in place of a Conv row: coordinate attention on what it reads",
)
class CAConv(nn.Module):
    """Coordinate attention, then a convolution, (B, c1, H, W) -> (B, c2, H/s, W/s).

    Args:
        c1: Input channels.
        c2: Output channels.
        k: Kernel size.
        s: Stride.
        act: True for the default activation, False for none.
        options: Passed on to ``CoordAtt``, e.g. ``reduction``.

    Raises:
        TypeError: A width that is a list or not an integer.
        ValueError: A number below 1, or another `act`.
    """

    gates: ClassVar[Gates] = HOLDS

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, act: bool | nn.Module = True, **options: Any) -> None:
        super().__init__()
        check_widths("CAConv", c1=c1, c2=c2, k=k, s=s)
        check_act("CAConv", act)
        self.attn = attention_of("CoordAtt", c1, "CAConv", options)
        self.conv = Conv(c1, c2, k, s, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return conv(attn(x))."""
        return self.conv(self.attn(x))
