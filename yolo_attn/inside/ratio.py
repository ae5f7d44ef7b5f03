"""The gate as output over input: where it can be told, and which layers of unknown classes have one."""

from __future__ import annotations

from typing import Any

__all__ = ["over", "recognise"]

EXACT, ROUGH = 1e-4, 1e-2  # how far the output may be from input times gate, of its largest value: fp32, half precision
MOST = 4.0  # a gate for each value is told by its bounds alone: none of a known paper goes beyond 2, exp's reaches e


def over(x: Any, y: Any, axes: str) -> tuple[Any, Any]:
    """Return the gate ``y / x`` and where it can be told.

    For a gate of the channels or of the positions it is the least-squares fit over what shares one, in fp32.

    Args:
        x: Input, (B, C, H, W).
        y: Output, same shape.
        axes: ``channel``, ``spatial`` or ``value``.

    Returns:
        The gate and a mask, (B, C, 1, 1), (B, 1, H, W) or (B, C, H, W). Where the mask is False the input is 0, and so
        is the gate; or a number is not finite, and the gate is NaN.
    """
    import torch

    tiny = 1e-4 if x.dtype == torch.float16 else 1e-30  # below it half precision has few digits, fp32 none
    x, y = x.detach().float(), y.detach().float()
    if axes == "value":
        finite = x.isfinite() & y.isfinite()
        good = (x.abs() > tiny) & finite
        return torch.where(good, y / torch.where(good, x, 1.0), torch.where(finite, 0.0, torch.nan)), good
    dims = (2, 3) if axes == "channel" else (1,)
    scale = x.abs().amax(dims, keepdim=True)
    finite = scale.isfinite() & y.abs().amax(dims, keepdim=True).isfinite()
    good = (scale > tiny) & finite
    scale = torch.where(good, scale, 1.0)
    x, y = x / scale, y / scale
    gate = (x * y).sum(dims, keepdim=True) / x.square().sum(dims, keepdim=True).clamp(min=0.5)
    return torch.where(good, gate, torch.where(finite, 0.0, torch.nan)), good


def recognise(x: Any, y: Any) -> str | None:
    """Return whether an output is the input times a gate: ``channel``, ``spatial``, ``value``, or None for no.

    The ratio is constant over the positions of each channel, or over the channels at each position; or it lies within
    the bounds of gates everywhere. An empty string where one map cannot tell: of a single position or channel.
    """
    import torch

    if not (torch.is_tensor(x) and torch.is_tensor(y)) or x.shape != y.shape or x.dim() != 4 or not x.is_floating_point():
        return None
    if x.shape[2] * x.shape[3] == 1 or x.shape[1] == 1 or not bool(x.any()):
        return ""
    for axes in ("channel", "spatial"):
        if fits(x, y, axes):
            return axes
    gate, good = over(x, y, "value")
    good &= x.abs() > 1e-3 * x.abs().amax()
    found = gate[good]
    return "value" if found.numel() and bool((found >= -EXACT).all()) and bool((found <= MOST).all()) else None


def fits(x: Any, y: Any, axes: str) -> bool:
    """Whether an output is the input times one gate for each channel, or position."""
    import torch

    gate, _ = over(x, y, axes)
    tolerance = EXACT if x.dtype == torch.float32 else ROUGH
    y = y.detach().float()
    size = y.abs().amax((1, 2, 3), keepdim=True)
    return bool(((x.detach().float() * gate - y).abs() <= tolerance * size).all())
