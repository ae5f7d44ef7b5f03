"""The operations of a detector with attention, for the hosts' own summaries (`model.info()`, the line after a build).

The hosts count on an image of one stride and multiply by the number of such images in the real one. That is exact
for convolutions over maps and wrong for a gate, whose layers see one pixel at any image size: by it SE behind each
backbone C3 of YOLOv5s costs several hundred times what it does. Here the host counts at the real size instead, on a
copy without weights, for which nothing is computed.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

__all__ = ["at_full_size"]


def at_full_size(model: Any, imgsz: int | Sequence[int], *, weights: bool = False) -> Any | None:
    """Return a copy of a detector whose stride, for the host's count, is the image; None if it has no attention.

    Args:
        model: A host's model.
        imgsz: Side of the image, or its height and width, in pixels.
        weights: Keep the weights; without them the copy lies on the `meta` device, where nothing is computed.
    """
    import torch

    from ..registry.registry import binding_of

    if not hasattr(model, "modules") or not any(binding_of(type(m)) for m in model.modules()):
        return None
    memo: dict[int, Any] = {}
    for tensor in () if weights else itertools.chain(model.parameters(), model.buffers()):
        empty = torch.empty_like(tensor, device="meta", requires_grad=False)
        trained = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if trained else empty
    try:
        twin = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError):  # a model in training may hold what cannot be copied
        return None
    twin.stride = torch.tensor([float(max(imgsz) if isinstance(imgsz, Sequence) else imgsz)])
    return twin
