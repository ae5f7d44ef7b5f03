"""Verify that an ONNX file computes what the PyTorch model computes: outputs first, then detections.

The reference is the model as trained, before the exporter fuses, copies or simplifies anything, so that a layer lost in
between (a host's `fuse` replaces the forward of every subclass of its `Conv`) shows as a difference.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ..errors import DataError, ExportError, first_line
from ..runtime.boxes import CONF, IOU, MAX_DET, iou_matrix, suppress
from ..runtime.image import blob, letterbox

__all__ = ["ReferenceFailed", "compare", "compare_detections", "largest_difference", "read_images", "shapes_to_try"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MIN_IOU = 0.99
# Lower bound of the scale of scores: a runtime's sigmoid has an absolute error of about 1e-7, and an untrained head
# returns 1e-5 everywhere.
LEAST_SCORE_SCALE = 0.1
LEAST_CONFIDENCE = 0.01  # below this, nothing counts as a detection
AT_THE_LIMIT = 1e-3  # an IoU this close to the threshold of NMS may fall on either side of it


class ReferenceFailed(ExportError):
    """The PyTorch model cannot run a shape, so that nothing is known of the file at that shape."""


def read_images(source: str | Path | Sequence[Any], limit: int = 8) -> list[np.ndarray]:
    """Read images: a file, a folder, or a list of files, folders or BGR arrays.

    Args:
        source: The images.
        limit: Maximum number of images.

    Returns:
        BGR images, (H, W, 3) uint8.

    Raises:
        DataError: No images there, or a file is not an image.
    """
    from ..runtime.source import read_image

    items = [source] if isinstance(source, (str, Path)) else list(source)
    out: list[np.ndarray] = []
    for item in items:
        if isinstance(item, np.ndarray):
            out.append(item)
            continue
        path = Path(item)
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: has no images ({', '.join(IMAGE_SUFFIXES)})")
        for file in files[: limit - len(out)]:
            if not file.is_file():
                raise DataError(f"image not found: {file} (looked in {Path.cwd()})")
            im = read_image(file)
            if im is None:
                raise DataError(f"{file}: is not an image that OpenCV can read")
            out.append(im)
    return out[:limit]


def shapes_to_try(size: tuple[int, int], stride: int, dynamic: bool, batch: int = 2) -> list[tuple[int, int, int]]:
    """Return the (batch, height, width) to run a file with: its own shape and, if dynamic, others, not all square.

    Args:
        size: Height and width that it was exported with, in pixels.
        stride: Other sizes are multiples of it.
        dynamic: Whether its shapes are dynamic.
        batch: The largest batch to run.
    """
    h, w = size
    if not dynamic:
        return [(1, h, w)]

    def part(n: int, by: float) -> int:
        return max(round(n * by / stride), 1) * stride

    other = part(w, 0.75) if part(w, 0.75) != w else w + stride
    return list(dict.fromkeys([(1, h, w), (batch, h, other), (1, part(h, 0.5), w + stride)]))


def largest_difference(reference: np.ndarray, output: np.ndarray, layout: str) -> dict[str, float]:
    """Return the largest difference in each group of values, relative to the largest value of the group.

    Boxes and scores are separate groups: relative to boxes of hundreds of pixels, any scores would seem equal.

    Args:
        reference: PyTorch's output, (B, ?, ?).
        output: The file's output, of the same shape.
        layout: A key of :data:`.runtime.boxes.LAYOUTS`.
    """
    if reference.shape != output.shape:
        return {"boxes": float("inf"), "scores": float("inf")}
    groups: dict[str, Any]
    if layout == "anchor-free":
        groups = {"boxes": np.s_[:, :4], "scores": np.s_[:, 4:]}
    elif layout == "anchor-based":
        groups = {"boxes": np.s_[..., :4], "scores": np.s_[..., 4:]}
    else:
        groups = {"boxes": np.s_[..., :4], "scores": np.s_[..., 4:5]}
    out = {}
    for name, where in groups.items():
        a, b = reference[where].astype(np.float64), output[where].astype(np.float64)
        difference = np.abs(a - b).max(initial=0.0)
        scale = np.abs(a).max(initial=LEAST_SCORE_SCALE if name == "scores" else 0.0)
        if not np.isfinite(difference):
            difference = np.inf
        out[name] = float(difference / scale) if scale else float(difference)
    return out


def compare_detections(
    reference: np.ndarray,
    output: np.ndarray,
    layout: str,
    *,
    tolerance: float,
    conf: float = CONF,
    iou: float = IOU,
    least_iou: float = MIN_IOU,
    untrained: bool = True,
    suppressed: bool = False,
) -> dict[str, Any]:
    """Compare one image's detections after NMS: each needs a counterpart of the same class with IoU >= `least_iou`.

    If the reference finds nothing above `conf` and `untrained` is set, the 50 best candidates above 0.01 are compared.
    Of two candidates with equal scores, within `tolerance`, NMS may keep either. A detection therefore counts as a tie
    instead of missing if the other side kept in its place another candidate of this side with its score, or a better
    one whose IoU with it equals the threshold `iou` within rounding.

    Args:
        reference: The network's output for one image.
        output: The file's output, in the same layout.
        layout: A key of :data:`.runtime.boxes.LAYOUTS`.
        tolerance: Largest difference of scores, relative to the best score, that counts as equal.
        conf: Confidence threshold.
        iou: IoU threshold of NMS.
        least_iou: Boxes with a smaller IoU do not match.
        untrained: Lower `conf` if nothing is above it.
        suppressed: `output` has already passed NMS with this `conf` and `iou`.

    Returns:
        Counts ``compared``, ``missing``, ``extra`` and ``ties``, the smallest IoU of a match ``min_iou``, and the
        ``conf`` that was used.
    """
    wide = suppress(reference, layout, conf=LEAST_CONFIDENCE, iou=iou)
    slack = tolerance * float(wide[:, 4].max(initial=LEAST_SCORE_SCALE))
    if untrained and not (wide[:, 4] > conf).any():
        conf = max(float(wide[min(len(wide), 50) - 1, 4]) - 3 * slack, LEAST_CONFIDENCE) if len(wide) else conf
    a = suppress(reference, layout, conf=conf - slack, iou=iou)
    b = suppress(output, "final" if suppressed else layout, conf=conf - slack, iou=iou)
    # of more than NMS returns, either side may have the last: what is compared is better than these
    full = [float(found[-1, 4]) for found in (a, b) if len(found) == MAX_DET]
    conf = max([conf, *full])
    from_a = _candidates(reference, layout, conf - slack)
    from_b = from_a if suppressed else _candidates(output, layout, conf - slack)
    missing, tied, ious = _unmatched(a, b, from_a, conf + slack, slack, iou, least_iou)
    extra, tied_b, _ = _unmatched(b, a, from_b, conf + slack, slack, iou, least_iou)
    return {
        "compared": int((a[:, 4] > conf + slack).sum()),
        "missing": missing,
        "extra": extra,
        "ties": tied + tied_b,
        "min_iou": min(ious, default=1.0),
        "conf": conf,
    }


def _candidates(output: np.ndarray, layout: str, conf: float) -> np.ndarray:
    """Return the input of NMS, (N, 6) x1 y1 x2 y2 confidence class."""
    return suppress(output, layout, conf=conf, iou=1.0, max_det=len(output.T) + len(output))


def _unmatched(
    a: np.ndarray, b: np.ndarray, candidates: np.ndarray, conf: float, slack: float, iou: float, least_iou: float
) -> tuple[int, int, list[float]]:
    """Count the detections of `a` above `conf` that are missing in `b` and those that are tied; list the others' IoU.

    `candidates` are the boxes from which NMS chose `a`.
    """
    missing = ties = 0
    ious = []
    overlap = iou_matrix(a[:, :4], b[:, :4])
    for i, found in enumerate(a):
        if found[4] <= conf:
            continue
        same = b[:, 5] == found[5]
        best = float(overlap[i][same].max(initial=0.0))
        if best >= least_iou:
            ious.append(best)
            continue
        score = b[:, 4] - found[4]
        twin = (overlap[i] > iou) & (np.abs(score) <= 2 * slack)
        twins = b[same & (twin | (np.abs(overlap[i] - iou) <= AT_THE_LIMIT) & (score >= -2 * slack))]
        known = iou_matrix(twins[:, :4], candidates[candidates[:, 5] == found[5], :4]) >= least_iou
        if known.any():
            ties += 1
        else:
            missing += 1
    return missing, ties, ious


def compare(
    torch_model: Callable[[Any], list[Any]],
    file: Callable[[np.ndarray], list[np.ndarray]],
    images: Sequence[np.ndarray],
    shapes: Sequence[tuple[int, int, int]],
    *,
    tolerance: float,
    layout: str | None,
    least_iou: float = MIN_IOU,
    nms: bool = False,
) -> Iterator[dict[str, Any]]:
    """Run network and file on every shape and yield one comparison per batch.

    Args:
        torch_model: Maps a float32 tensor (B, 3, H, W) to the tensors that an exported file has to have, the main one
            first, such as boxes and prototypes of masks.
        file: Maps a float32 array (B, 3, H, W) to the file's outputs, in the same order.
        images: BGR images, letterboxed to each shape.
        shapes: (batch, height, width).
        tolerance: Largest difference, relative to the scale of the output, that counts as equal.
        layout: Layout of the network's output, a key of :data:`.runtime.boxes.LAYOUTS`; None for tasks other than
            detection, of which only the raw outputs are compared.
        least_iou: Boxes with a smaller IoU do not match.
        nms: The file applies NMS itself, so only detections can be compared.

    Yields:
        ``shape``, ``images``, ``difference`` per group of values, ``detections`` as of :func:`compare_detections`,
        and ``equal``.

    Raises:
        ReferenceFailed: The network cannot run one of the shapes.
        ExportError: The file lacks an output, has one more, or has one of another shape.
    """
    import torch

    for batch, h, w in shapes:
        for start in range(0, len(images), batch):
            group = [images[(start + k) % len(images)] for k in range(batch)]
            x = blob([letterbox(im, (h, w))[0] for im in group])
            try:
                with torch.inference_mode():
                    references = [t.float().numpy() for t in torch_model(torch.from_numpy(x))]
            except Exception as exc:  # a module of the user's own, which may be made for one size
                shape = "x".join(map(str, x.shape))
                raise ReferenceFailed(
                    f"PyTorch itself cannot run it at {shape}: {type(exc).__name__}: {first_line(exc)[:200]}"
                ) from exc
            outputs = file(x)
            _check_outputs(references, outputs, "x".join(map(str, x.shape)), shapes=layout is None)
            entry: dict[str, Any] = {"shape": [batch, 3, h, w], "images": batch}
            pairs: list[dict[str, Any]] = []
            found: Callable[..., dict[str, Any]] = functools.partial(
                compare_detections, layout=layout or "", tolerance=tolerance, least_iou=least_iou
            )
            if nms:
                pairs = [found(r, o, untrained=False, suppressed=True) for r, o in zip(references[0], outputs[0])]
                entry["difference"] = {}
            elif layout is None:
                entry["difference"] = {f"output {k}": _relative(r, o) for k, (r, o) in enumerate(zip(references, outputs))}
            else:
                reference, output = references[0], outputs[0]
                entry["difference"] = largest_difference(reference, output, layout)
                if reference.shape == output.shape:
                    pairs = [found(r, o) for r, o in zip(reference, output)]
            entry["detections"] = {
                **{k: sum(p[k] for p in pairs) for k in ("compared", "missing", "extra", "ties")},
                "min_iou": min((p["min_iou"] for p in pairs), default=1.0),
                "conf": [p["conf"] for p in pairs],
            }
            entry["equal"] = (
                all(v <= tolerance for v in entry["difference"].values())
                and entry["detections"]["missing"] == entry["detections"]["extra"] == 0
            )
            yield entry


def _check_outputs(references: Sequence[np.ndarray], outputs: Sequence[np.ndarray], at: str, shapes: bool) -> None:
    """Refuse a file that lacks one of the network's outputs, or has them in another order, as far as shapes tell.

    Raises:
        ExportError: The message names the output.
    """
    if not outputs:  # nothing to compare is no proof
        raise ExportError(f"at {at} it has no output")
    if len(outputs) != len(references):
        raise ExportError(f"at {at} it has {len(outputs)} outputs, PyTorch's network has {len(references)}")
    for k, (r, o) in enumerate(zip(references, outputs)):
        if shapes and r.shape != o.shape:
            raise ExportError(f"at {at} output {k} has the shape {list(o.shape)}, PyTorch's has {list(r.shape)}")


def _relative(reference: np.ndarray, output: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value; of (B, channels, N), relative to each channel's.

    The channels of a head are boxes of hundreds of pixels, scores, mask coefficients, key points, angles.
    """
    reference = reference.astype(np.float64)
    difference = np.abs(reference - output)
    if not np.isfinite(difference).all():
        return float("inf")
    if reference.ndim != 3:
        return float(difference.max(initial=0.0) / max(np.abs(reference).max(initial=0.0), 1e-12))
    scale = np.maximum(np.abs(reference).max((0, 2), initial=0.0), LEAST_SCORE_SCALE)
    return float((difference.max((0, 2), initial=0.0) / scale).max(initial=0.0))
