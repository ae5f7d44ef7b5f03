"""Count operations: of any module as torch counts them, and of a detector with attention for the hosts' own summaries.

In ``model.info()`` and the like, the hosts count on an image the size of one stride and multiply by the number of such tiles in the real image. This is
exact for convolutions over maps and wrong for a gate, whose layers see one pixel at any image size: SE after each
backbone C3 of YOLOv5s appears several hundred times as expensive as it is. Here the host counts at the real size, on a
copy without weights, so nothing is computed.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

__all__ = ["at_full_size", "count"]


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
    if not weights:
        for part in twin.modules():
            # torch works out a batch norm's shapes on 'meta' in Python, half of the time that all layers take
            if isinstance(part, torch.nn.BatchNorm2d):
                vars(part)["forward"] = _same
    twin.stride = torch.tensor([float(max(imgsz) if isinstance(imgsz, Sequence) else imgsz)])
    return twin


def _same(x: Any) -> Any:
    return x


def count(module: Any, *inputs: Any) -> int:
    """Return the floating-point operations of one forward pass, without gradients: convolutions and matrix products.

    A multiply-add counts as two operations. torch counts from version 2.1 on; for older ones the same formulas stand here,
    without fused attention, which the kit's modules do not use there.
    """
    import torch

    try:
        from torch.utils.flop_counter import FlopCounterMode
    except ImportError:  # before torch 2.1
        counter: Any = _counter()
    else:
        counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(*inputs)
    return int(counter.get_total_flops())


def _counter() -> Any:
    """A context that adds up what passes through torch's dispatcher."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = op(*args, **(kwargs or {}))
            self.total += _operations(str(op).split(".")[1], args, out)
            return out

        def get_total_flops(self) -> int:
            return self.total

    return Counter()


def _operations(name: str, args: Any, out: Any) -> int:
    """Two for each multiply-add of a call of ATen's operator."""
    if name in ("convolution", "_convolution"):
        x, weight, transposed = args[0], args[1], args[6]
        pixels = x[0, 0].numel() if transposed else out[0, 0].numel()
        return 2 * int(x.shape[0]) * pixels * weight.numel()
    if name in ("mm", "bmm"):
        return 2 * out.numel() * int(args[0].shape[-1])
    if name in ("addmm", "baddbmm"):
        return 2 * out.numel() * int(args[1].shape[-1])
    return 0
