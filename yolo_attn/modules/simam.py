"""SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks, Yang, Zhang, Li, Xie,
ICML 2021, https://proceedings.mlr.press/v139/yang21o.html

The inverse energy of each neuron (eq. 5, inverted): ``1/e = (x - mu)^2 / (4 (var + lambda)) + 1/2`` with mean and
variance over its channel, the variance divided by H W - 1; the output is ``x * sigmoid(1/e)`` (eq. 6).

Equal to: the formula. On a map of 1 x 1, where H W - 1 is 0, the variance is 0. Half precision is widened to fp32:
the square of 1e3 already overflows fp16.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Blend, check_number, match, wide
from ._gates import Gates, over_input

__all__ = ["SimAM"]


@register(
    "SimAM",
    aliases=("SimAMAttention", "simam_module", "Simam_module"),
    paper="SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks",
    kind="both",
    oracle="formula (eq. 5, 6)",
    use="a gate for each neuron without a single weight; nothing to learn, nothing to transfer",
)
class SimAM(nn.Module):
    """Parameter-free attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        e_lambda: lambda of eq. 5.
        start: ``paper`` or ``identity``; the latter adds one learned number.

    Raises:
        ValueError: `e_lambda` is not positive or as large as a channel count, or an unknown `start`.
    """

    identity: ClassVar[str] = "x + w (y - x), w = 0"
    gates: ClassVar[Gates] = over_input("value", ends=(0.5, 1.0))

    def __init__(self, *, e_lambda: float = 1e-4, start: str = "paper") -> None:
        super().__init__()
        self.e_lambda = check_number(e_lambda, "e_lambda", 0, above=True)
        if self.e_lambda > 1:
            raise ValueError(f"e_lambda must lie in (0, 1], got {e_lambda}: above, every gate is the same constant")
        self.blend = Blend.when(start)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each neuron of `x`."""
        z = wide(x)
        d = z - z.mean((2, 3), keepdim=True)
        d = d * d
        area = x.shape[2] * x.shape[3]
        n = area - 1 + 1 // area  # at least 1, without a branch that tracing would freeze
        energy = d / (4 * (d.sum((2, 3), keepdim=True) / n + self.e_lambda)) + 0.5
        y = x * match(energy.sigmoid(), x)
        return y if self.blend is None else self.blend(x, y)

    def extra_repr(self) -> str:
        """Show lambda."""
        return f"e_lambda={self.e_lambda:g}"
