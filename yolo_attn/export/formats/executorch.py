"""ExecuTorch's ``model.pte``, lowered to XNNPACK."""

from __future__ import annotations

from pathlib import Path

from ...files import write_bytes
from ..classic import prepared
from .base import Format, Job, Need
from .host import STEM, by_ultralytics, write_metadata

__all__ = ["FORMAT"]


def convert(job: Job) -> Path:
    """Write ``model_executorch_model/``."""
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
