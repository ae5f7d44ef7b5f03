"""Numbers that say whether a map means anything: energy in the box, insertion, deletion, and shuffled weights.

A detection is of one position of the head, so any map of it lies near its box, whatever the weights are. What a map
shows of what the network has learned is therefore told by the same network with its weights shuffled (Adebayo et al.,
2018, sanity checks): its maps of the same positions are what chance gives.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from .reading import Candidate, Reader

__all__ = ["STEPS", "area", "box_mask", "curves", "energy", "shuffled"]

# Shares of the image that are taken away or put in: dense where small objects are decided.
STEPS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0)
GREY = 114 / 255  # the hosts' padding
BLUR = 1 / 12  # sigma of the blurred image, in shares of its longer side
BATCH = 16  # images in one run of the network


def box_mask(box: Any, shape: tuple[int, int]) -> Any:
    """Return the pixels whose centres lie in a box, (h, w) bool; the nearest pixel where there is none."""
    x1, y1, x2, y2 = box
    ys, xs = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
    mask = ((ys >= y1) & (ys <= y2))[:, None] & ((xs >= x1) & (xs <= x2))[None]
    if not mask.any():
        mask[np.abs(ys - (y1 + y2) / 2).argmin(), np.abs(xs - (x1 + x2) / 2).argmin()] = True
    return mask


def energy(cam: Any, box: Any) -> float:
    """Return the share of a map that lies in a box (energy-based pointing game: Wang et al., 2020, Score-CAM, sec. 4.3).

    A map that is zero everywhere counts as flat: the share of the box in the image.
    """
    mask = box_mask(box, cam.shape)
    total = float(cam.sum())
    return float(cam[mask].sum() / total) if total > 0 else float(mask.mean())


def curves(reader: Reader, x: Any, candidate: Candidate, cams: Sequence[Any]) -> Any:
    """Return insertion and deletion curves of several maps of one detection.

    Insertion and deletion as in RISE (Petsiuk et al., 2018): pixels come into a blurred image, or are painted grey, in
    the order of the map. The score is, after D-RISE (2021, sec. 3.2), the best product of IoU and class score over
    all positions, as a share of what it is in the whole image.

    Args:
        reader: The detector whose score is measured.
        x: The image, (1, 3, h, w).
        candidate: The detection.
        cams: Maps, (h, w) each.

    Returns:
        (maps, 2, steps) scores at each of :data:`STEPS`, insertion first.
    """
    import torch

    h, w = x.shape[-2:]
    order = [torch.from_numpy(np.argsort(-cam.ravel(), kind="stable")) for cam in cams]
    far, grey = _blurred(x), torch.full_like(x, GREY)
    todo = [(m, kind, s) for m in range(len(order)) for kind in (0, 1) for s in range(1, len(STEPS) - 1)]

    def image(m: int, kind: int, s: int) -> Any:
        top = torch.zeros(h * w, dtype=torch.bool)
        top[order[m][: round(STEPS[s] * h * w)]] = True
        top = top.view(1, 1, h, w)
        return torch.where(top, grey, x) if kind else torch.where(top, x, far)

    out = np.empty((len(order), 2, len(STEPS)))
    with torch.no_grad():
        whole, least, none = (float(_similarity(*reader(im), candidate)[0]) for im in (x, far, grey))
        for b in range(0, len(todo), BATCH):
            part = todo[b : b + BATCH]
            out[tuple(zip(*part))] = _similarity(*reader(torch.cat([image(*t) for t in part])), candidate)
    out[:, 0, 0], out[:, 0, -1], out[:, 1, 0], out[:, 1, -1] = least, whole, whole, none
    return out / max(whole, 1e-12)


def area(curve: Any) -> Any:
    """Return the area under curves, (..., steps), over the logarithm of the share, from the first step to the last but one.

    On a linear scale nine tenths of the area would be of shares at which any map has long since covered the object.
    """
    inner = curve[..., 1:-1]
    width = np.diff(np.log(STEPS[1:-1]))
    return ((inner[..., 1:] + inner[..., :-1]) / 2 * width).sum(-1) / width.sum()


def _similarity(boxes: Any, scores: Any, candidate: Candidate) -> Any:
    import torch

    box = torch.as_tensor(candidate.box, dtype=boxes.dtype)
    low, high = torch.maximum(boxes[..., :2], box[:2]), torch.minimum(boxes[..., 2:], box[2:])
    inter = (high - low).clamp(min=0).prod(-1)
    own = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
    iou = inter / (own + (box[2:] - box[:2]).prod() - inter).clamp(min=1e-9)
    return (iou * scores[..., candidate.cls]).amax(1).double().cpu().numpy()


def _blurred(x: Any) -> Any:
    import cv2
    import torch

    image = np.ascontiguousarray(x[0].permute(1, 2, 0).cpu().numpy())
    out = cv2.GaussianBlur(image, (0, 0), max(image.shape[:2]) * BLUR, borderType=cv2.BORDER_REFLECT)
    return torch.from_numpy(out).permute(2, 0, 1)[None]


def shuffled(reader: Reader, seed: int, images: Any) -> Reader:
    """Return a detector whose numbers are those of another, each tensor's in random order, so that it knows nothing.

    Statistics of batch norms are taken anew on the images: with those of the trained features the maps would be of
    activations that vanish or explode.

    Args:
        reader: The detector; not changed.
        seed: Of the order.
        images: (B, 3, h, w).
    """
    import torch

    out = copy.copy(reader)
    out.model = copy.deepcopy(reader.model)
    generator = torch.Generator().manual_seed(seed)
    norms = []
    fixed = {id(m) for dfl in out.model.modules() if type(dfl).__name__ == "DFL" for m in dfl.modules()}  # bin numbers
    with torch.no_grad():
        for m in out.model.modules():
            if id(m) in fixed:
                continue
            for p in m.parameters(recurse=False):
                flat = p.flatten()
                p.copy_(flat[torch.randperm(flat.numel(), generator=generator)].view_as(p))
            if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.track_running_stats:
                norms.append((m, m.momentum))
                m.reset_running_stats()
                m.momentum = None  # cumulative average
                m.train()
        out(torch.cat((images, images.flip(-1))))  # at least two: one value has no variance
        for m, momentum in norms:
            m.momentum = momentum
            m.eval()
    return out
