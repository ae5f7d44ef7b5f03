"""The effective receptive field: which pixels a unit of the network really depends on (Luo et al., 2016).

The gradient of the central unit of each feature map that the head reads, toward the pixels of real images; all channels
of the unit together, as in RepLKNet (Ding et al., 2022). The theoretical field of a deep unit is often the whole image;
what counts of it is far smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .reading import Reader

__all__ = ["SHARES", "centre", "fields", "mean_sides", "side"]

SHARES = (0.5, 0.95)  # of the gradient, whose square is measured


def fields(reader: Reader, images: Sequence[Any]) -> tuple[Any, list[int]]:
    """Return the effective receptive fields of the central units of what the head reads.

    Args:
        reader: The detector.
        images: (1, 3, h, w) each, of one size.

    Returns:
        (images, levels, h, w) float64, each map with the sum 1, or 0 where no gradient arrives; and the stride of each
        level, in pixels.
    """
    import torch

    head = reader.model.model[-1]
    out, strides = [], []
    for image in images:
        seen: list[Any] = []

        def keep(module: Any, given: tuple[Any, ...], seen: list[Any] = seen) -> None:
            seen.extend(given[0] if isinstance(given[0], (list, tuple)) else [given[0]])

        handle = head.register_forward_pre_hook(keep)
        try:
            with torch.enable_grad():
                x = image.detach().clone().requires_grad_(True)
                reader(x)
        finally:
            handle.remove()
        levels = [f for f in seen if torch.is_tensor(f) and f.ndim == 4]
        strides = [round(x.shape[-2] / f.shape[-2]) for f in levels]
        maps = []
        for k, f in enumerate(levels):
            unit = f[0, :, f.shape[2] // 2, f.shape[3] // 2].relu().sum()
            (grad,) = torch.autograd.grad(unit, x, retain_graph=k < len(levels) - 1)
            field = grad[0].abs().sum(0).double()
            maps.append((field / field.sum().clamp(min=1e-30)).cpu().numpy())
        out.append(np.stack(maps))
    return np.stack(out), strides


def centre(field: Any) -> tuple[float, float]:
    """Return y and x of the pixel in whose row and column the middle of the gradient is.

    Not the centre of the unit's cell: with padding of one pixel, a strided convolution looks up to half a cell beside it.
    """
    half = float(field.sum()) / 2
    y, x = (min(int(np.searchsorted(field.sum(k).cumsum(), half)), field.shape[1 - k] - 1) for k in (1, 0))
    return y + 0.5, x + 0.5


def side(field: Any, share: float) -> float:
    """Return the side, in pixels, of the smallest square around the middle that holds a share of the gradient.

    Args:
        field: (h, w), at least 0.
        share: Between 0 and 1.

    Returns:
        The side; NaN where no gradient arrives.
    """
    if not field.any():
        return float("nan")
    y, x = centre(field)
    ys, xs = np.abs(np.arange(field.shape[0]) + 0.5 - y), np.abs(np.arange(field.shape[1]) + 0.5 - x)
    reach = np.maximum(ys[:, None], xs[None]).ravel()
    order = np.argsort(reach, kind="stable")
    held = field.ravel()[order].cumsum()
    at = min(int(np.searchsorted(held, share * held[-1])), len(held) - 1)
    return float(2 * reach[order][at] + 1)


def mean_sides(sides: Any) -> Any:
    """Return the mean over images, (images, ...) to (...), of those where there is a side; NaN where there is none."""
    there = ~np.isnan(sides)
    count = there.sum(0)
    return np.where(count > 0, np.where(there, sides, 0).sum(0) / np.maximum(count, 1), np.nan)
