"""What is kept of a gate over images: its mean and spread in each channel and cell, in memory that does not grow."""

from __future__ import annotations

from typing import Any

__all__ = ["DEAD", "GRID", "NEAR_END", "Moments"]

GRID = 20  # cells along a side of a map at most: P5 of 640 pixels
DEAD = 0.02  # a gate this close to 0 lets nothing through
NEAR_END = 0.01  # of its range: there a sigmoid's slope is below 0.01


class Moments:
    """Running statistics of one gate.

    A gate (B, C, H, W), of which C, or H and W, may be 1, is averaged into at most ``GRID`` x ``GRID`` cells. Statistics
    are over images in each channel and cell; what varies within a cell counts as spread. They are kept in float64 on
    the CPU. Of the first `keep` images, the mean of each channel and the mean of each cell are kept as well.

    Args:
        keep: Of how many images.
        bounds: Least and greatest number that the gate can be, or None.
    """

    def __init__(self, keep: int, bounds: tuple[float, float] | None) -> None:
        self.keep, self.bounds = keep, bounds
        self.images = 0
        self.count: Any = None  # (C, h, w), as are the following
        self.mean: Any = None
        self.squares: Any = None  # of deviations, summed over images
        self.least: Any = None  # of the images' means in a cell
        self.most: Any = None
        self.dead: Any = None  # share of the cell that is dead, summed over images
        self.ended: Any = None  # likewise at an end of the range other than 0
        self.not_finite: Any = None  # (C,) in how many images a number of the channel is NaN or infinite
        self.channels: list[Any] = []  # (C,) of each kept image
        self.maps: list[Any] = []  # (h, w) of each kept image

    def add(self, gate: Any, good: Any | None = None) -> None:
        """Add the gates of a batch.

        Args:
            gate: (B, C, H, W), of which C, or H and W, may be 1.
            good: Where it can be told, same shape; everywhere when absent.
        """
        import torch

        gate = gate.detach().double() if gate.device.type != "mps" else gate.detach().cpu().double()
        broken = (~gate.isfinite()).flatten(2).any(2).sum(0).cpu()
        self.not_finite = broken if self.not_finite is None else self.not_finite + broken
        good = gate.isfinite() if good is None else good.to(gate.device) & gate.isfinite()
        gate = torch.where(good, gate, 0.0)
        weight = good.double()
        size = tuple(self.mean.shape[1:]) if self.mean is not None else tuple(min(n, GRID) for n in gate.shape[2:])
        share = pooled(weight, size)  # (B, C, h, w)
        there = share > 0
        part = torch.where(there, share, 1.0)
        cell = pooled(gate, size) / part
        inner = (pooled(gate.square(), size) / part - cell.square()).clamp(min=0)
        flat = (pooled((good & (gate.abs() <= DEAD)).double(), size) / part, pooled(self._at_end(gate, good), size) / part)
        kept = max(self.keep - len(self.channels), 0)
        whole = weight.sum((2, 3))
        channel = torch.where(whole > 0, gate.sum((2, 3)) / whole.clamp(min=1), torch.nan)
        across = weight.sum(1)
        # averaged over the channels first: channels that cannot be told somewhere do not count there
        maps = pooled(torch.where(across > 0, gate.sum(1) / across.clamp(min=1), 0.0).unsqueeze(1), size)[:, 0]
        self.channels.extend(channel[:kept].float().cpu())
        self.maps.extend(maps[:kept].float().cpu())
        self.images += len(gate)
        self._merge(*(t.cpu() for t in (there, cell, inner, *flat)))

    def _at_end(self, gate: Any, good: Any) -> Any:
        import torch

        at = torch.zeros_like(good)
        if self.bounds is not None:
            low, high = self.bounds
            near = NEAR_END * (high - low)
            at = good & ((gate >= high - near) | ((gate <= low + near) if low > DEAD else torch.zeros_like(good)))
        return at.double()

    def _merge(self, there: Any, cell: Any, inner: Any, dead: Any, ended: Any) -> None:
        """Join the moments of a batch to those so far (Chan, Golub, LeVeque, 1979)."""
        import torch

        n = there.sum(0).double()
        zero = torch.zeros((), dtype=torch.float64)
        mean = torch.where(there, cell, zero).sum(0) / n.clamp(min=1)
        squares = torch.where(there, (cell - mean).square() + inner, zero).sum(0)
        least = torch.where(there, cell, torch.inf).amin(0)
        most = torch.where(there, cell, -torch.inf).amax(0)
        dead, ended = (torch.where(there, t, zero).sum(0) for t in (dead, ended))
        if self.mean is None:
            self.count, self.mean, self.squares = n, mean, squares
            self.least, self.most, self.dead, self.ended = least, most, dead, ended
            return
        total = (self.count + n).clamp(min=1)
        step = mean - self.mean
        self.squares = self.squares + squares + step.square() * self.count * n / total
        self.mean = self.mean + step * n / total
        self.count = self.count + n
        self.least, self.most = torch.minimum(self.least, least), torch.maximum(self.most, most)
        self.dead, self.ended = self.dead + dead, self.ended + ended


def pooled(x: Any, size: Any) -> Any:
    """Average a map into cells; one that has as many is returned as it is."""
    import torch

    return x if tuple(x.shape[2:]) == tuple(size) else torch.nn.functional.adaptive_avg_pool2d(x, size)
