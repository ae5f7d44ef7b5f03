"""Beyond Self-Attention: Deformable Large Kernel Attention for Medical Image Segmentation, Azad, Niggemeier,
Huettemann, Kazerouni, Aghdam, Velichko, Bagci, Merhof, https://arxiv.org/abs/2309.00121

Large kernel attention (a 5 x 5 depthwise convolution, a 7 x 7 depthwise one with dilation 3, a 1 x 1 one; the result
multiplies the input) whose two depthwise convolutions are deformable: a convolution of the same kernel and dilation
tells for each position where each of the k x k values under the kernel is read, bilinearly.

Equal to: the formula with the authors' layers, whose deformable convolutions have no bias;
``torchvision.ops.deform_conv2d``. Reading is ``grid_sample``, opset 16 in ONNX; on a GPU under deterministic
algorithms, which refuse its backward, it goes by indices. The 1 x 1 convolutions, the GELU and the residual around it
are in ``DeformableLKAAttention``. Offsets start small, by the layer's own default. Cubic in the input: the product
ends at the largest number of fp16.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import check_channels, full_precision, identity_start, match, product, wide, zero_
from ._gates import Gates, over_input
from ._local import sample

__all__ = ["DeformableLKA", "DeformableLKAAttention"]


@register(
    "DeformableLKA",
    aliases=("deformable_LKA", "DLKA", "D_LKA"),
    paper="Beyond Self-Attention: Deformable Large Kernel Attention for Medical Image Segmentation",
    arxiv="2309.00121",
    kind="both",
    oracle="torchvision deform_conv2d",
    use="LKA whose kernels follow the shape of things; slow, for small maps",
)
class DeformableLKA(nn.Module):
    """Deformable large kernel attention, (B, C, H, W) -> (B, C, H, W). Holds 49 copies of the map.

    Args:
        channels: C, the channels of the input.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An unknown `start`.
    """

    identity: ClassVar[str] = "last layer 0, its bias 1"
    gates: ClassVar[Gates] = over_input("value", ends=None)

    def __init__(self, channels: int, *, start: str = "paper") -> None:
        super().__init__()
        c = check_channels(channels, "DeformableLKA")
        self.conv0 = DeformableDepthwise(c, 5)
        self.conv_spatial = DeformableDepthwise(c, 7, 3)
        self.conv1 = nn.Conv2d(c, c, 1)
        if identity_start(start):
            zero_(self.conv1)
            nn.init.ones_(self.conv1.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value of `x` by its surroundings."""
        return product(x, self.conv1(self.conv_spatial(self.conv0(x))))


@register(
    "DeformableLKAAttention",
    aliases=("deformable_LKA_Attention", "DLKA_Attention", "DLKAAttention"),
    paper="Beyond Self-Attention: Deformable Large Kernel Attention for Medical Image Segmentation",
    arxiv="2309.00121",
    kind="both",
    oracle="torchvision deform_conv2d",
    use="the whole block: DeformableLKA between two 1 x 1 layers, with a residual",
)
class DeformableLKAAttention(nn.Module):
    """Deformable large kernel attention with its projections, ``x + proj_2(dlka(gelu(proj_1(x))))``.

    (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An unknown `start`.
    """

    identity: ClassVar[str] = "last layer 0: the residual alone"
    gates: ClassVar[Gates] = "it adds a term to its input; in that term, its layer spatial is gated"

    def __init__(self, channels: int, *, start: str = "paper") -> None:
        super().__init__()
        c = check_channels(channels, "DeformableLKAAttention")
        self.proj_1 = nn.Conv2d(c, c, 1)
        self.act = nn.GELU()
        self.spatial = DeformableLKA(c)
        self.proj_2 = nn.Conv2d(c, c, 1)
        if identity_start(start):
            zero_(self.proj_2)

    def forward(self, x: Tensor) -> Tensor:
        """Add to `x` its values weighted by their surroundings."""
        with full_precision(x):  # whose gradient is a sum of cubes
            z = match(self.act(convolve(self.proj_1, wide(x))), x)
        return x + self.proj_2(self.spatial(z))


class DeformableDepthwise(nn.Module):
    """Depthwise convolution whose k x k values are read at learned places, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C.
        kernel_size: k, odd.
        dilation: Distance of the values where nothing is moved.
    """

    steps: Tensor

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__()
        k, pad = kernel_size, dilation * (kernel_size // 2)
        self.offset = nn.Conv2d(channels, 2 * k * k, k, padding=pad, dilation=dilation)
        self.conv = nn.Conv2d(channels, channels, k, groups=channels, bias=False)  # only its weight is used
        place = torch.arange(k, dtype=torch.float32) * dilation - pad
        steps = torch.stack((place.repeat_interleave(k), place.repeat(k)), 1)  # along height and width, (k k, 2)
        self.register_buffer("steps", steps.reshape(1, 2 * k * k, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the moved values by their weights."""
        b, c, h, w = x.shape
        layer, taps = self.offset, self.offset.out_channels // 2
        with full_precision(x):  # places in fp32: at 160 positions fp16 tells eighths
            offset = convolve(layer, wide(x))
            moved = (offset + wide(self.steps)).reshape(b, taps, 2 * h, w)  # rows, then columns of each tap
            grid = [torch.arange(n, device=x.device, dtype=moved.dtype) for n in (h, w)]  # NCNN has no integers
            rows, columns = moved[:, :, :h] + grid[0].unsqueeze(1), moved[:, :, h:] + grid[1]
        rows, columns = (t.reshape(b, taps * h, w) for t in (rows, columns))
        with full_precision(x):
            values = wide(sample(x, rows, columns)).reshape(b, c, taps, h * w)
            y = (values * wide(self.conv.weight).reshape(1, c, taps, 1)).sum(2).reshape(b, c, h, w)
        return match(y, x)


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return ``layer(x)`` with the weights in the type of `x`, where that is wider than theirs."""
    weight, bias = wide(layer.weight), None if layer.bias is None else wide(layer.bias)
    return nn.functional.conv2d(x, weight, bias, padding=layer.padding, dilation=layer.dilation)
