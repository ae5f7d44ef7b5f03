"""SE-Inception: figure 2 of Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507

The whole Inception module (https://arxiv.org/abs/1409.4842, figure 2b) is the transformation; SE weighs its
concatenated output. Four branches: 1x1; 1x1 then 3x3; 1x1 then 5x5; 3x3 max-pooling then 1x1. Their widths follow
GoogLeNet's module 3a (64, 128, 32 and 32 of 256 channels, reductions to 96 and 16). Batch normalization follows every
convolution, as in Inception-v2 and as in the SE paper's BN-Inception.

Equal to: ``torchvision.models.googlenet.Inception`` followed by SE, with ReLU and ``large=3``: torchvision's 5x5 branch
has a 3x3 kernel.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._conv import Conv, attention_of, check_act, check_widths
from ._gates import HOLDS, Gates

__all__ = ["SEInception"]


@register(
    "SEInception",
    aliases=("SE_Inception", "SEInceptionBlock"),
    paper="Squeeze-and-Excitation Networks",
    arxiv="1709.01507",
    kind="block",
    oracle="torchvision googlenet.Inception followed by SEAttention",
    use="several receptive fields in one block, weighed by SE",
)
class SEInception(nn.Module):
    """Inception module with attention on its output, (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: Input channels.
        c2: Output channels, at least 8.
        large: Kernel size of the third branch, odd.
        act: Activation; the YAML's (SiLU unless it says otherwise) when True.
        module: A registered attention module, by name; None for a plain Inception module.
        options: Passed on to the attention module, e.g. ``reduction``.

    Raises:
        ValueError: `c2` below 8, an even `large`, or an `act` that is neither a flag nor a module.
    """

    gates: ClassVar[Gates] = HOLDS

    def __init__(
        self,
        c1: int,
        c2: int,
        *,
        large: int = 5,
        act: bool | nn.Module = True,
        module: str | type | None = "SEAttention",
        **options: Any,
    ) -> None:
        super().__init__()
        check_widths("SEInception", c1=c1, c2=c2, large=large)
        check_act("SEInception", act)
        if c2 < 8 or large % 2 == 0:
            raise ValueError(f"SEInception needs c2 of at least 8 and an odd kernel, got {c2} and {large}")
        third = pooled = c2 // 8
        first = c2 // 4
        second = c2 - first - third - pooled  # a half, and the remainder where 8 does not divide
        narrow = max(c2 // 16, 1)
        self.branch1 = Conv(c1, first, act=act)
        self.branch2 = nn.Sequential(Conv(c1, 6 * narrow, act=act), Conv(6 * narrow, second, 3, act=act))
        self.branch3 = nn.Sequential(Conv(c1, narrow, act=act), Conv(narrow, third, large, act=act))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), Conv(c1, pooled, act=act))
        self.attn = attention_of(module, c2, "SEInception", options)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted concatenation of the four branches."""
        return self.attn(torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), 1))
