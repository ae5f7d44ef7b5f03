"""Mixed local channel attention for object detection, Wan, Lu, Shen, Xu, Lang, Ren, Engineering Applications of
Artificial Intelligence 123, 2023, https://doi.org/10.1016/j.engappai.2023.106442

Local pooling: the means of n x n cells. Global pooling: the mean of the cells. Each passes ECA's 1-D convolution over
the channels (the cells in one row, one after another) and a sigmoid; their mean is unpooled to the map and
weighs the input.

Equal to: the authors' code. A position's gate is the mean over the cells that it touches, and a cell's mean that over the
positions that it touches, as adaptive pooling has it; both are products with one 0/1 matrix, which is deterministic
and exports with dynamic height and width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..registry.registry import register
from ._base import Gate, check_channels, check_integer, check_kernel, check_number, identity_start, match, mean, zero_
from ._gates import Gates, over_input
from .eca import eca_kernel_size

__all__ = ["MLCA"]


@register(
    "MLCA",
    aliases=("MLCAttention", "MixedLocalChannelAttention"),
    paper="Mixed local channel attention for object detection",
    kind="both",
    oracle="formula (adaptive pooling)",
    use="ECA for the whole map and for its parts; a handful of weights, made for YOLO",
)
class MLCA(nn.Module):
    """Mixed local channel attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        kernel_size: k of both convolutions, odd. Default: chosen from C as in ECA.
        local_size: n, cells along height and along width.
        local_weight: Share of the local gate, 0 to 1.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: An even kernel, a number out of its range, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "convolutions 0, gates 2 * sigmoid"
    gates: ClassVar[Gates] = over_input("value")

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int | None = None,
        local_size: int = 5,
        local_weight: float = 0.5,
        gate: str = "sigmoid",
        start: str = "paper",
    ) -> None:
        super().__init__()
        self.channels = check_channels(channels, "MLCA")
        self.local_size = check_integer(local_size, "local_size")
        self.local_weight = check_number(local_weight, "local_weight", 0)
        if self.local_weight > 1:
            raise ValueError(f"local_weight must lie between 0 and 1, got {local_weight!r}")
        k = eca_kernel_size(channels) if kernel_size is None else check_kernel(kernel_size)
        self.conv = nn.Conv2d(1, 1, (k, 1), padding=(k // 2, 0), bias=False)
        self.conv_local = nn.Conv2d(1, 1, (k, 1), padding=(k // 2, 0), bias=False)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.conv, self.conv_local)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each channel of `x`, here and as a whole."""
        n, c = self.local_size, self.channels
        rows, columns = touching(n, x.shape[2], x), touching(n, x.shape[3], x).t()  # (n, H), (W, n)
        cells = rows / rows.sum(1, keepdim=True) @ x @ (columns / columns.sum(0, keepdim=True))  # (B, C, n, n)
        whole = mean(cells, (2, 3)).transpose(1, 2)  # (B, 1, C, 1)
        row = cells.flatten(2).transpose(1, 2).reshape(-1, 1, n * n * c, 1)
        local = self.gate(self.conv_local(row)).reshape(-1, n * n, c).transpose(1, 2).reshape(-1, c, n, n)
        whole = self.gate(self.conv(whole)).transpose(1, 2)
        gate = match(whole + self.local_weight * (local - whole), x)
        rows, columns = rows / rows.sum(0, keepdim=True), columns / columns.sum(1, keepdim=True)  # means over cells
        return x * match(rows.t() @ gate @ columns.t(), x)

    def extra_repr(self) -> str:
        """Show n and the share of the local gate."""
        return f"local_size={self.local_size}, local_weight={self.local_weight:g}"


def touching(cells: int, length: int, x: Tensor) -> Tensor:
    """Return 1 where a cell touches a position, else 0, (cells, length), in the type of `x`.

    Cell i spans i / cells to (i + 1) / cells of the length, position j spans j / length to (j + 1) / length.
    """
    i = torch.arange(cells, device=x.device).unsqueeze(1)
    ahead = torch.arange(length, device=x.device) * cells - i * length  # of the cell's start, in 1 / (cells length)
    return ((ahead > -cells) & (ahead < length)).to(x.dtype)
