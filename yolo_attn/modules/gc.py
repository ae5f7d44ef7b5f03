"""GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, Cao, Xu, Lin, Wei, Hu,
https://arxiv.org/abs/1904.11492

Context: the sum of all positions, weighted by a softmax over a 1 x 1 convolution. Transform: 1 x 1 convolution, layer
norm, ReLU, 1 x 1 convolution. Fusion: added to every position, the last layer starting at zero; so the
paper's own start is the identity.

Equal to: ``timm.layers.GlobalContext(c, fuse_add=True, fuse_scale=False)``; ``fuse="scale"`` to the other one, which
multiplies by the sigmoid. The hidden layer is never narrower than 4: a layer norm over one value is a constant.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import Gate, LayerNorm, check_channels, hidden_channels, identity_start, softmax_mean, zero_
from ._gates import ADDS, Depends, Gates, over_input

__all__ = ["GC"]


@register(
    "GC",
    aliases=("GlobalContext", "GlobalContextBlock", "GCBlock", "GCAttention", "ContextBlock"),
    paper="GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
    arxiv="1904.11492",
    kind="channel",
    oracle="timm GlobalContext",
    use="a non-local block for the price of SE; adds context rather than gating, so it starts as the identity",
    positional=("1/reduction", "1/reduction - -"),
)
class GC(nn.Module):
    """Global context block, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: r of the transform.
        fuse: ``add`` (the paper's) or ``scale``.
        gate: ``sigmoid`` or ``hard_sigmoid``, for ``fuse="scale"``.
        start: ``paper`` or ``identity``; the same for ``fuse="add"``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `fuse`, `gate` or `start`.
    """

    identity: ClassVar[str] = "the paper's start: last layer 0"
    gates: ClassVar[Gates] = Depends(lambda m: over_input("channel") if m.fuse == "scale" else ADDS)

    def __init__(
        self, channels: int, *, reduction: int = 16, fuse: str = "add", gate: str = "sigmoid", start: str = "paper"
    ) -> None:
        super().__init__()
        check_channels(channels, "GC")
        if fuse not in ("add", "scale"):
            raise ValueError(f"fuse must be 'add' or 'scale', got {fuse!r}")
        hidden = hidden_channels(channels, reduction, 4)
        self.fuse = fuse
        self.attn = nn.Conv2d(channels, 1, 1)
        nn.init.kaiming_normal_(self.attn.weight, nonlinearity="relu")
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.norm = LayerNorm(hidden)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.gate = Gate(gate, start)
        if identity_start(start) or fuse == "add":
            zero_(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """Give every position of `x` the global context."""
        z = self.fc2(self.act(self.norm(self.fc1(softmax_mean(x, self.attn(x))))))
        if self.fuse == "scale":
            return x * self.gate(z)
        return x - (
            -z
        )  # a sum as a difference: OpenCV 5.0 takes conv + x for a residual and refuses the unequal shapes
