"""On the Integration of Self-Attention and Convolution, Pan, Ge, Lu, Song, Chen, Huang, Huang,
https://arxiv.org/abs/2111.14556

Three 1 x 1 convolutions (stage I) serve two paths (stage II). Attention: each position to the 7 x 7 around it, in
heads, with an encoding of the relative position. Convolution: a layer mixes the 3 heads features of the three maps
into one for each place of a 3 x 3 kernel; they are shifted to their places and summed, which is a grouped 3 x 3
convolution that starts as these shifts and learns. The output is ``alpha attention + beta convolution``, both 1/2 at
the start.

Equal to: the formula with the authors' layers. Their attention reflects the map at its border; here what lies outside
is not attended to, so that maps smaller than the kernel work. Their encoding is linear in the position, of which only
the difference enters, so its bias cancels and is left out. Positions run from -1 to 1 between the map's edges, not
between its outermost centres.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, check_channels, check_kernel, fit_groups
from ._gates import MIXES, Gates
from ._local import attend_near

__all__ = ["ACmix"]


class Rate(nn.Module):
    """``w x`` with one learned w that starts at 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Scale `x`."""
        return self.weight * x


@register(
    "ACmix",
    aliases=("ACMix", "ACmixAttention", "ACMIX", "AcMix"),
    paper="On the Integration of Self-Attention and Convolution",
    arxiv="2111.14556",
    kind="both",
    oracle="formula",
    use="in the place of a 3 x 3 convolution: it and local attention share their layers",
)
class ACmix(nn.Module):
    """Convolution and local self-attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        kernel_size: Kernel size of the attention, odd.
        heads: Number of heads; lowered until it divides the channels.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, an even kernel, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = MIXES
    steps: Tensor

    def __init__(self, channels: int, *, kernel_size: int = 7, heads: int = 4, start: str = "paper") -> None:
        super().__init__()
        c, k = check_channels(channels, "ACmix"), check_kernel(kernel_size)
        self.heads, self.kernel_size = fit_groups(c, heads, "heads"), k
        d = self.head_channels = c // self.heads
        self.conv1 = nn.Conv2d(c, c, 1)
        self.conv2 = nn.Conv2d(c, c, 1)
        self.conv3 = nn.Conv2d(c, c, 1)
        self.position = nn.Linear(2, d, bias=False)
        place = torch.arange(k, dtype=torch.float32) - k // 2
        steps = torch.stack((place.repeat(k), place.repeat_interleave(k)))  # x and y of each neighbour, (2, k k)
        self.register_buffer("steps", steps, persistent=False)
        self.fc = nn.Conv2d(3 * self.heads, 9, 1, bias=False)
        self.shift = nn.Conv2d(9 * d, c, 3, padding=1, groups=d)
        self.alpha, self.beta = Rate(), Rate()
        with torch.no_grad():
            self.shift.weight.copy_(torch.eye(9).reshape(1, 9, 3, 3).expand_as(self.shift.weight))
            nn.init.zeros_(self.shift.bias)  # type: ignore[arg-type]
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both paths."""
        q, k, v = self.conv1(x), self.conv2(x), self.conv3(x)
        y = self.alpha(self.attention(q, k, v)) + self.beta(self.convolution(q, k, v))
        return y if self.blend is None else self.blend(x, y)

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from each position to those around it."""
        weight = self.position.weight  # own position minus the neighbour's, which is -step, in halves of the map
        x, y = weight[:, :1] * self.steps[:1] * -2 / q.shape[3], weight[:, 1:] * self.steps[1:] * -2 / q.shape[2]
        return attend_near(q * self.head_channels**-0.5, k, v, self.heads, self.kernel_size, bias=x + y)

    def convolution(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix the three maps into one for each place of a kernel, shift and sum."""
        b, _, h, w = q.shape
        maps = torch.cat((q, k, v), 1).reshape(b, 3 * self.heads, self.head_channels, h * w)
        return self.shift(self.fc(maps).transpose(1, 2).reshape(b, 9 * self.head_channels, h, w))
