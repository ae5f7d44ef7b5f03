"""Gates of positions, seen on an image: where spatial attention lets through, and whether that is inside the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import paired
from .faithfulness import box_mask
from .reading import Reader
from .recording import record_gates

__all__ = ["gate_maps", "inside_boxes"]


def gate_maps(reader: Reader, x: Any) -> list[tuple[str, str, Any]]:
    """Return the gates of positions of an image, (1, 3, h, w), as the detector has them on it.

    Returns:
        Name, location and (h, w) float64 map of each, at the size of its layer; the mean over channels of a gate that
        has both.
    """
    import torch

    with record_gates(reader.model) as gates, torch.no_grad():
        reader(x)
    out = []
    for name, gate in gates.items():
        if not gate.images:
            continue
        map_ = np.asarray(gate.maps[0].double())
        if map_.ndim == 2 and map_.size > 1:
            out.append((name, gate.location, map_))
    return out


def wide(map_: Any, shape: tuple[int, int]) -> Any:
    """Return a map at the size of the network's input, each cell over its own pixels."""
    import cv2

    return cv2.resize(np.ascontiguousarray(map_, dtype=np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)


def inside_boxes(images: Sequence[Any], side: int) -> dict[str, tuple[str, paired.Difference]]:
    """Return for each gate of positions how much more it lets through inside the boxes than outside, over images.

    What the gate does at the same place of the other images is taken off first: padding alone makes a gate another one
    along the border, where boxes seldom lie.

    Args:
        images: See :class:`.explain.Found`.
        side: Number of the detector.
    """
    maps: dict[str, list[tuple[Any, Any]]] = {}
    locations: dict[str, str] = {}
    for found in images:
        for name, location, map_ in found.gates[side]:
            maps.setdefault(name, []).append((found, map_))
            locations[name] = location
    out = {}
    for name, seen in maps.items():
        grid = seen[0][1].shape
        all_ = np.stack([wide(map_, grid) for _, map_ in seen])
        values = []
        for k, (found, _) in enumerate(seen):
            mask = np.any([box_mask(b, found.shape) for b in found.seen[side]], 0)
            if len(seen) < 2 or mask.all():
                continue
            own = wide(all_[k] - np.delete(all_, k, 0).mean(0), found.shape)
            values.append(float(own[mask].mean() - own[~mask].mean()))
        out[name] = (locations[name], paired.compared(values, np.zeros(len(values)), tests=len(maps)))
    return out
