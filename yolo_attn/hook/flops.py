"""Count the operations of a detector with attention for the hosts' own summaries, such as ``model.info()``.

The hosts count on an image the size of one stride and multiply by the number of such tiles in the real image. This is
exact for convolutions over maps and wrong for a gate, whose layers see one pixel at any image size: SE after each
backbone C3 of YOLOv5s appears several hundred times as expensive as it is. Here the host counts at the real size, on a
copy without weights, so nothing is computed.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

__all__ = ["at_full_size"]


def at_full_size(model: Any, imgsz: int | Sequence[int], *, weights: bool = False) -> Any | None:
    """Return a copy of a detector whose stride is the whole image, for the host to count on.

    Args:
        model: A host's model.
        imgsz: Side of the image, or its height and width, in pixels.
        weights: Keep the weights. Without them the copy is on the ``meta`` device, where nothing is computed.

    Returns:
        The copy; None if the detector has no attention or cannot be copied.
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
    except (RuntimeError, TypeError):  # a model in training may hold attributes that cannot be copied
        return None
    twin.stride = torch.tensor([float(max(imgsz) if isinstance(imgsz, Sequence) else imgsz)])
    return twin
