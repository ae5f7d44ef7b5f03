"""What the kit's attention modules share: argument checks, reductions and gates.

Rules that every module keeps, so that it trains under AMP, deterministically, and exports with dynamic shapes:
reduce with ``mean``/``amax`` over dimensions, never with adaptive pooling objects; build nothing in ``forward``;
keep sums in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Gate", "check_channels", "spatial_max", "spatial_mean"]


def check_channels(channels: object, module: str) -> int:
    """Return `channels` if it is a positive integer.

    Raises:
        TypeError: A list arrives: the row's `from` names several inputs.
        ValueError: Not positive.
    """
    if isinstance(channels, (list, tuple)):
        raise TypeError(f"{module} takes one input, but its row's 'from' names {len(channels)}")
    if isinstance(channels, bool) or not isinstance(channels, int):
        raise TypeError(f"{module} needs an integer number of channels, got {channels!r}")
    if channels < 1:
        raise ValueError(f"{module} needs at least one channel, got {channels}")
    return channels


def spatial_mean(x: Tensor) -> Tensor:
    """Mean over height and width, (B, C, H, W) -> (B, C, 1, 1), summed in fp32 so that half precision cannot overflow."""
    if x.dtype in (torch.float16, torch.bfloat16):
        return x.mean((2, 3), keepdim=True, dtype=torch.float32).to(x.dtype)
    return x.mean((2, 3), keepdim=True)


def spatial_max(x: Tensor) -> Tensor:
    """Maximum over height and width, (B, C, H, W) -> (B, C, 1, 1); deterministic on CUDA, unlike adaptive pooling."""
    return x.amax((2, 3), keepdim=True)


class Gate(nn.Module):
    """The function that turns a score into a weight between 0 and 1: ``sigmoid`` or ``hard_sigmoid``.

    The hard sigmoid is ``relu6(x + 3) / 6`` (1905.02244, section 5.2), as in torch and ONNX.
    """

    def __init__(self, gate: str = "sigmoid") -> None:
        super().__init__()
        if gate not in ("sigmoid", "hard_sigmoid"):
            raise ValueError(f"gate must be 'sigmoid' or 'hard_sigmoid', got {gate!r}")
        self.gate = gate

    def forward(self, score: Tensor) -> Tensor:
        """Return the gate of `score`, same shape."""
        return score.sigmoid() if self.gate == "sigmoid" else nn.functional.hardsigmoid(score)

    def extra_repr(self) -> str:
        """Show the function."""
        return self.gate
