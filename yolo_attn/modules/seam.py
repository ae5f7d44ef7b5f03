"""YOLO-FaceV2: A Scale and Occlusion Aware Face Detector, Yu, Huang, Chen, Su, Liu, https://arxiv.org/abs/2208.02019

SEAM, separated and enhancement attention: depth times a depthwise 3 x 3 convolution with a residual and a 1 x 1
convolution, each with GELU and batch norm; the mean of each channel of the result; two fully connected layers with a
ReLU between, a sigmoid; the input is weighted by the exponential of that, 1 to e, so that what is visible of an
occluded face is raised. MultiSEAM does it at several scales: a convolution cuts the map into patches of p x p, one
branch for each p, and the mean of the branches' channel means and the input's own goes into the two layers; there the
activation is SiLU.

Equal to: the formula, with the authors' layers. Their patch convolutions drop what is left of a map beyond whole
patches and fail below one; here patches lie centred, so each position is in one and any size does. The mean over the
branches is over all of them, where their code divides three branches and the input by 4 whatever the number of
branches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    BatchNorm,
    Gate,
    check_channels,
    check_integer,
    check_kernel,
    check_kernels,
    hidden_channels,
    identity_start,
    spatial_mean,
    zero_,
)
from ._gates import Gates, over_input

__all__ = ["SEAM", "MultiSEAM"]

PAPER = "YOLO-FaceV2: A Scale and Occlusion Aware Face Detector"
ARXIV = "2208.02019"


class NormBehindAct(BatchNorm):
    """Batch norm after an activation.

    In a traced graph it is a product and a sum, the same numbers: OpenCV 5.0 folds a batch norm into the convolution
    before the activation.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, (B, C, H, W) -> (B, C, H, W)."""
        mean, var = self.running_mean, self.running_var
        if self.training or not torch.jit.is_tracing() or mean is None or var is None:
            return super().forward(input)
        scale = self.weight / (var + self.eps).sqrt()
        shift = self.bias - mean * scale
        return input * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class Separable(nn.Module):
    """``norm(act(pointwise(x + norm(act(depthwise(x))))))``, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C.
        kernel_size: Kernel size of the depthwise convolution.
        act: The activation's class.
    """

    def __init__(self, channels: int, kernel_size: int, act: type[nn.Module]) -> None:
        super().__init__()
        pad = kernel_size // 2
        self.depthwise = nn.Conv2d(channels, channels, kernel_size, padding=pad, groups=channels)
        self.norm1 = NormBehindAct(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.norm2 = NormBehindAct(channels)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Mix positions, then channels of `x`."""
        x = x + self.norm1(self.act(self.depthwise(x)))
        return self.norm2(self.act(self.pointwise(x)))


class ExpGate(nn.Module):
    """Two layers and ``exp(sigmoid(score))``, (B, C, 1, 1) -> (B, C, 1, 1).

    Args:
        channels: C.
        reduction: The hidden layer has C // reduction channels.
        gate: ``sigmoid`` or ``hard_sigmoid``.
        start: With ``identity`` the exponent is ``sigmoid - 1/2`` and the last layer 0, so the gate is 1.
    """

    def __init__(self, channels: int, reduction: int, gate: str, start: str) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)
        self.gate = Gate(gate)
        self.shift = 0.5 if identity_start(start) else 0.0
        if self.shift:
            zero_(self.fc2)

    def forward(self, z: Tensor) -> Tensor:
        """Return the gate of the channel means `z`."""
        weight = self.gate(self.fc2(self.act(self.fc1(z))))
        return (weight - self.shift if self.shift else weight).exp()


@register(
    "SEAM",
    aliases=("SEAMAttention", "SeparatedAndEnhancementAttention"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="channel",
    oracle="formula",
    use="objects that hide one another; raises channels by up to e and never lowers them",
)
class SEAM(nn.Module):
    """Separated and enhancement attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        depth: How often the separable convolution is applied.
        reduction: The hidden layer has C // reduction channels.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layer 0, exp(sigmoid - 1/2)"
    gates: ClassVar[Gates] = over_input("channel", ends=lambda m: (math.exp(-m.excite.shift), math.exp(1 - m.excite.shift)))

    def __init__(
        self, channels: int, *, depth: int = 1, reduction: int = 16, gate: str = "sigmoid", start: str = "paper"
    ) -> None:
        super().__init__()
        check_channels(channels, "SEAM")
        depth = check_integer(depth, "depth")
        self.mix = nn.Sequential(*(Separable(channels, 3, nn.GELU) for _ in range(depth)))
        self.excite = ExpGate(channels, reduction, gate, start)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        return x * self.excite(spatial_mean(self.mix(x)))


@register(
    "MultiSEAM",
    aliases=("MultiSEAMAttention", "MSEAM"),
    paper=PAPER,
    arxiv=ARXIV,
    kind="channel",
    oracle="formula",
    use="SEAM at several scales at once; dear: a full convolution for each patch size",
)
class MultiSEAM(nn.Module):
    """Separated and enhancement attention at several scales, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        depth: How often each branch applies the separable convolution.
        kernel_size: Size of the depthwise convolutions, odd.
        patch_sizes: Sides p of the patches, odd, at least two; one branch for each.
        reduction: The hidden layer has C // reduction channels.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, an even size or fewer than two, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layer 0, exp(sigmoid - 1/2)"
    gates: ClassVar[Gates] = over_input("channel", ends=lambda m: (math.exp(-m.excite.shift), math.exp(1 - m.excite.shift)))

    def __init__(
        self,
        channels: int,
        *,
        depth: int = 1,
        kernel_size: int = 3,
        patch_sizes: Sequence[int] = (3, 5, 7),
        reduction: int = 16,
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        c, depth = check_channels(channels, "MultiSEAM"), check_integer(depth, "depth")
        check_kernel(kernel_size)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, c, p, stride=p, padding=p // 2),
                nn.SiLU(),
                NormBehindAct(c),
                *(Separable(c, kernel_size, nn.SiLU) for _ in range(depth)),
            )
            for p in check_kernels(patch_sizes, "patch_sizes")
        )
        self.excite = ExpGate(c, reduction, gate, start)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        z = spatial_mean(x)
        for branch in self.branches:
            z = z + spatial_mean(branch(x))
        return x * self.excite(z / (len(self.branches) + 1))
