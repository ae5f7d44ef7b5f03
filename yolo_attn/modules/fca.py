"""FcaNet: Frequency Channel Attention Networks, Qin, Zhang, Wu, Li, https://arxiv.org/abs/2012.11879

Squeeze-and-excitation whose squeeze is a discrete cosine transform instead of the mean, which is its lowest
frequency. The channels are divided into as many parts as frequencies are chosen, and each part takes one of them (eq.
8-10); then SE's two layers and the sigmoid. The paper's two-step choice on ImageNet ranks the 49 frequencies of a 7 x
7 map.

Equal to: the formula on the map averaged into 7 x 7 cells, as the authors' code does for every size but the one that
it was built for. The cells are adaptive pooling's, written as products with 0/1 matrices. Where channels do not
divide into the parts, the parts differ by one channel. Layers have no bias.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import (
    Gate,
    check_channels,
    check_integer,
    full_precision,
    hidden_channels,
    identity_start,
    match,
    wide,
    zero_,
)
from ._gates import Gates, over_input
from .mlca import touching

__all__ = ["FcaNet"]

CELLS = 7
# (row, column) of the paper's 16 best frequencies, the best first.
TOP = ((0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0), (5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3),
       (3, 5), (2, 2))  # fmt: skip


@register(
    "FcaNet",
    aliases=("FCA", "Fca", "FcaAttention", "FcaLayer", "MultiSpectralAttentionLayer", "MultiSpectralAttention"),
    paper="FcaNet: Frequency Channel Attention Networks",
    arxiv="2012.11879",
    kind="channel",
    oracle="formula",
    use="SE at its price, whose squeeze keeps some of where; at 1 frequency it is SE",
)
class FcaNet(nn.Module):
    """Frequency channel attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: The hidden layer has C // reduction channels.
        frequencies: Number of frequencies, the best of 16.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, more than 16 frequencies, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "last layer 0, gate 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("channel")
    basis: Tensor

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        frequencies: int = 16,
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        hidden = hidden_channels(check_channels(channels, "FcaNet"), reduction)
        if check_integer(frequencies, "frequencies") > len(TOP):
            raise ValueError(f"frequencies must be at most {len(TOP)}, got {frequencies}")
        # the 2-D basis of each channel, over H W as a mean has it; no weights, so the checkpoint does not carry it
        self.register_buffer("basis", cosines(channels, frequencies), persistent=False)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        with full_precision(x):
            z = wide(x)
            rows, columns = touching(CELLS, x.shape[2], z), touching(CELLS, x.shape[3], z)
            cells = rows / rows.sum(1, keepdim=True) @ z @ (columns / columns.sum(1, keepdim=True)).t()
            z = (cells * match(self.basis, cells)).sum((2, 3), keepdim=True)
        return x * self.gate(self.fc2(self.act(self.fc1(match(z, x)))))


def cosines(channels: int, frequencies: int) -> Tensor:
    """Return the basis of each channel, (1, C, 7, 7), scaled as in the authors' code."""
    place = (torch.arange(CELLS, dtype=torch.float64) + 0.5) * (math.pi / CELLS)
    waves = [(f * place).cos() / math.sqrt(CELLS) * (1.0 if f == 0 else math.sqrt(2)) for f in range(CELLS)]
    maps = [waves[u].unsqueeze(1) * waves[v] for u, v in TOP[:frequencies]]
    return torch.stack([maps[c * frequencies // channels] for c in range(channels)]).unsqueeze(0).float()
