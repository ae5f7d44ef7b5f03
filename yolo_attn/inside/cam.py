"""Class activation maps of detections, by torchcam's LayerCAM, in layers that are found from the graph.

LayerCAM (Jiang et al., 2021, eq. 4): each position of a feature map counts with its positive gradient toward the score
of one detection. The maps of several layers are added as they are, since they are in one unit, that of the score:
a layer that hardly matters to a detection then hardly shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import CheckpointError, UsageError, YoloAttnError, first_line
from ..words import option
from .reading import Candidate, Reader

__all__ = ["LAYERS", "inputs_of", "layers_of", "maps", "need_library"]

# What `--layers` takes: features of the backbone that the neck reads, or what the head reads.
LAYERS = ("backbone", "head")


def need_library() -> None:
    """Import torchcam.

    Raises:
        YoloAttnError: It is not installed.
    """
    try:
        import torchcam.methods  # noqa: F401
    except ImportError as exc:
        raise YoloAttnError(
            f"explain needs torchcam, which is not installed ({exc}): pip install 'yolo_attn[explain]', or pip install torchcam"
        ) from exc


def layers_of(reader: Reader, where: str = "backbone") -> list[int]:
    """Return the rows whose features are looked at.

    Args:
        reader: The detector.
        where: ``backbone``: rows of the backbone that rows of the head part read, P3 to P5 in most models; ``head``: the
            rows that the last row reads, in a detector without a neck the same.

    Raises:
        UsageError: No such place.
    """
    if where not in LAYERS:
        raise UsageError(f"{option('layers', where)}: takes {' or '.join(LAYERS)}")
    rows = list(reader.model.model)
    last = inputs_of(rows[-1], len(rows) - 1)
    many = len((getattr(reader.model, "yaml", None) or {}).get("backbone") or [])
    if where == "head" or not 0 < many < len(rows):
        return sorted(set(last))
    read = {i for k in range(many, len(rows)) for i in inputs_of(rows[k], k) if i < many}
    return sorted(read) or sorted(set(last))


def inputs_of(row: Any, k: int) -> list[int]:
    """Return the rows that a built row reads, row `k` of the model."""
    f = getattr(row, "f", -1)
    return [k + i if i < 0 else i for i in (f if isinstance(f, (list, tuple)) else [f])]


def maps(reader: Reader, x: Any, candidates: Sequence[Candidate], layers: Sequence[int]) -> Any:
    """Return where the score of each detection comes from.

    Args:
        reader: The detector.
        x: One image, (1, 3, h, w).
        candidates: The detections.
        layers: Rows whose features are looked at.

    Returns:
        (K, h, w) float64, at least 0; the sum over a region is the share of the region, in the unit of the score.

    Raises:
        CheckpointError: A score does not depend on these rows, or their output is no feature map.
    """
    import torch
    from torchcam.methods import LayerCAM

    h, w = x.shape[-2:]
    out = torch.zeros(len(candidates), h, w, dtype=torch.float64)
    if not candidates:
        return out.numpy()
    rows = [reader.model.model[i] for i in layers]
    with torch.enable_grad():
        extractor = LayerCAM(reader.model, rows)
        try:
            _, scores = reader(x.detach().clone().requires_grad_(True))
            own = torch.stack([scores[0, c.index, c.cls] for c in candidates])[None]
            for k in range(len(candidates)):
                for cam in _extracted(reader, extractor, own, k):
                    area = (h / cam.shape[-2]) * (w / cam.shape[-1])
                    wide = torch.nn.functional.interpolate(
                        cam.detach()[:, None].double().cpu(), (h, w), mode="bilinear", align_corners=False
                    )
                    out[k] += wide[0, 0] / area
        finally:
            extractor.remove_hooks()
            extractor.reset_hooks()
    return out.numpy()


def _extracted(reader: Reader, extractor: Any, scores: Any, k: int) -> Any:
    try:
        return extractor(class_idx=k, scores=scores, normalized=False, retain_graph=k < scores.shape[1] - 1)
    except (RuntimeError, AssertionError, AttributeError, TypeError) as exc:  # as torchcam and autograd have it
        raise CheckpointError(
            f"{reader.source.path}: no map in these rows, as no gradient of the score arrives there: {first_line(exc)[:200]}. "
            f"Try {option('layers', 'head')}."
        ) from exc
