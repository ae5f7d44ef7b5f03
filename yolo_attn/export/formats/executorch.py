"""ExecuTorch's ``model.pte``, lowered to XNNPACK.

Four things are converted in another way, since ExecuTorch 1.5 computes something else than PyTorch, or refuses them:

* its layout pass keeps maps channels-last behind a convolution, and XNNPACK's softmax of a map then runs over the channels
  instead of the width, wrong by half of the output: a softmax is given its input in PyTorch's order, as ``linear`` is;
* fused attention has another order of axes in memory than the formula that replaces it, so that a ``reshape`` behind it is
  refused (``Cannot view a tensor``): it is the formula from the beginning;
* XNNPACK's GELU is the exact one, also where the approximation by a hyperbolic tangent was asked for, and it has no maximum
  over the channels: both are left to ExecuTorch's own kernels;
* a global pooling of maxima, as users' channel attention has, is no operator of ExecuTorch: it is a maximum.

The parts of ExecuTorch that this reaches into are its own; where a version lacks one it is left out, and the proof decides.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...files import write_bytes
from ..classic import prepared
from .base import Format, Job, Need
from .host import STEM, by_ultralytics, write_metadata

__all__ = ["FORMAT", "as_pytorch"]


def convert(job: Job) -> Path:
    """Write ``model_executorch_model/``."""
    with as_pytorch():
        if job.source.host == "ultralytics":
            return by_ultralytics(job, "executorch")
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        network, x = prepared(job.source, job.size, False)
        lowered = to_edge_transform_and_lower(torch.export.export(network, (x,)), partitioner=[XnnpackPartitioner()])
        folder = Path(f"{STEM}_executorch_model")
        folder.mkdir()
        write_bytes(folder / f"{STEM}.pte", lowered.to_executorch().buffer, durable=False)
        write_metadata(folder, job)
        return folder


@contextlib.contextmanager
def as_pytorch() -> Iterator[None]:
    """Have ExecuTorch convert what the head of this file names into what computes as PyTorch does."""
    from torch.nn import functional
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with contextlib.ExitStack() as stack:

        def replace(owner: Any, name: str, value: Any) -> None:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        def only(config: str, has: Callable[[Any], bool]) -> None:
            """Leave an operator to XNNPACK only where `has` says of its node that XNNPACK has it."""
            found = _part("backends.xnnpack.partition.config", config)
            if own := getattr(found, "check_constraints", None):
                replace(found, "check_constraints", lambda self, node, program: own(self, node, program) and has(node))

        layout = _part("backends.xnnpack._passes.channels_last_tagged_reshape_pass", "ChannelsLastTaggedReshapePass")
        ops = _part("exir.dialects._ops", "ops")
        if ops and (in_order := getattr(layout, "memory_sensitive_ops_nchw", None)):
            replace(layout, "memory_sensitive_ops_nchw", {*in_order, ops.edge.aten._softmax.default})
        only("GeluConfig", lambda node: node.kwargs.get("approximate", "none") == "none")
        only("MaxDimConfig", lambda node: tuple(node.args[1:]) in ((2, True), (3, True)))
        replace(functional, "adaptive_max_pool2d", _global_maximum(functional.adaptive_max_pool2d))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _part(module: str, name: str) -> Any:
    """Return a class or an object of ExecuTorch, or None where this version has it elsewhere."""
    try:
        return getattr(importlib.import_module(f"executorch.{module}"), name, None)
    except ModuleNotFoundError:
        return None


def _global_maximum(own: Callable[..., Any]) -> Callable[..., Any]:
    """Return a pooling of maxima that is a maximum where one value a channel is left."""

    def pool(input: Any, output_size: Any, return_indices: bool = False) -> Any:
        if output_size in (1, (1, 1), [1, 1]) and not return_indices:
            return input.amax((-2, -1), keepdim=True)
        return own(input, output_size, return_indices)

    return pool


FORMAT = Format(
    "executorch",
    "ExecuTorch",
    "_executorch_model",
    "executorch",
    (Need("executorch", "executorch", "1.0"),),
    convert,
    "executorch",
    parts=("*.pte", "metadata.yaml"),
)
