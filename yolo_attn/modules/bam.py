"""BAM: Bottleneck Attention Module, Park, Woo, Lee, Kweon, https://arxiv.org/abs/1807.06514

``F' = F + F * sigmoid(Mc + Ms)`` (eq. 1, 2). Channel branch (eq. 3): batch norm of a two-layer MLP on the channel
means. Spatial branch (eq. 4): 1 x 1 reduction, two dilated 3 x 3 convolutions, 1 x 1 to one channel, batch norm.

Equal to: the formula. The equations leave out the ReLU between the layers; it is here, as everywhere. The authors'
code has its batch norms after the hidden layers instead of the last ones and multiplies the two branches where eq. 2
adds them; here norms and sum are the equations'.
OpenCV 5.0 cannot run its exported graph (it takes the sum of the two branches for a residual); onnxruntime can.
Under the identity start the residual and the gate, ``1 + sigmoid``, become ``2 * sigmoid``, which is 1 at score 0.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..registry.registry import register
from ._base import BatchNorm, Gate, check_channels, check_integer, hidden_channels, identity_start, spatial_mean, zero_
from ._gates import Gates, over_input, times

__all__ = ["BAM"]


@register(
    "BAM",
    aliases=("BAMBlock", "BAMAttention"),
    paper="BAM: Bottleneck Attention Module",
    arxiv="1807.06514",
    kind="both",
    oracle="formula (eq. 1-4)",
    use="between stages, where the map shrinks; wide context by dilation",
)
class BAM(nn.Module):
    """Bottleneck attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C, the channels of the input.
        reduction: r, both branches reduce to C // r channels.
        dilation: d of the two 3 x 3 convolutions.
        gate: ``sigmoid`` (the paper's) or ``hard_sigmoid``.
        start: ``paper`` or ``identity``.

    Raises:
        TypeError: `channels` is a list or not an integer.
        ValueError: A number below 1, or an unknown `gate` or `start`.
    """

    identity: ClassVar[str] = "batch norms 0, 2 * sigmoid for 1 + sigmoid"
    gates: ClassVar[Gates] = over_input("value", ends=lambda m: times(1, float(m.residual))(m))

    def __init__(
        self, channels: int, *, reduction: int = 16, dilation: int = 4, gate: str = "sigmoid", start: str = "paper"
    ) -> None:
        super().__init__()
        check_channels(channels, "BAM")
        check_integer(dilation, "dilation")
        hidden = hidden_channels(channels, reduction)
        self.channel = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1), BatchNorm(channels)
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
            BatchNorm(1),
        )
        self.residual = not identity_start(start)
        self.gate = Gate(gate, start)
        if identity_start(start):
            zero_(self.channel[-1], self.spatial[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Weigh channels and positions of `x` together."""
        weight = self.gate(self.channel(spatial_mean(x)) + self.spatial(x))
        return x + x * weight if self.residual else x * weight
