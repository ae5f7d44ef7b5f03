"""What a detector looks at, base beside attention, and whether the pictures of it mean anything.

:func:`explain` measures: maps of matched detections (:mod:`.cam`), numbers (:mod:`.faithfulness`) and their tests
(:mod:`.paired`), receptive fields (:mod:`.receptive_field`), gates of positions. :mod:`.explain_report` draws and writes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ..detectors.opening import open_source
from ..errors import CheckpointError, DataError, UsageError
from ..runtime.image import round_up
from ..runtime.source import VIDEOS, read_image
from ..runtime.source import Source as Files
from ..words import option
from . import cam, faithfulness, paired, receptive_field, spatial
from .progress import Progress
from .reading import Candidate, Picture, Reader, matched, picture

__all__ = ["MEASURES", "Explained", "Found", "Look", "Settings", "explain"]

# What is measured of each map, and whether more is better.
MEASURES = {"energy": True, "insertion": True, "deletion": False}
CALIBRATION = 8  # images that the statistics of shuffled detectors are taken from
FIELDS = 16  # images that receptive fields are averaged over


@dataclass(frozen=True)
class Settings:
    """What to do; every number has a limit, so that the time is bounded.

    Args:
        imgsz: Height and width of the network's input in pixels; those of the training when absent.
        conf: Confidence from which a detection counts.
        iou: IoU threshold of NMS.
        max_det: Detections in each image, the surest first.
        limit: Images; of more, as many are drawn.
        draws: Shuffled detectors, at least 2.
        layers: ``backbone`` or ``head``, see :func:`.cam.layers_of`.
        seed: Of the drawing and the shuffling.
    """

    imgsz: Sequence[int] | None = None
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 3
    limit: int = 32
    draws: int = 5
    layers: str = "backbone"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("conf", "iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{option(name)} must be between 0 and 1, got {getattr(self, name)}")
        for name, least in (("max_det", 1), ("limit", 1), ("draws", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{option(name)} must be at least {least}, got {getattr(self, name)}")
        if self.layers not in cam.LAYERS:
            raise UsageError(f"{option('layers')} takes {' or '.join(cam.LAYERS)}, got {self.layers!r}")
        if self.imgsz is not None and (not 1 <= len(self.imgsz) <= 2 or min(self.imgsz) < 1):
            raise UsageError(f"{option('imgsz')} takes one side, or height and width, in pixels, got {list(self.imgsz)}")


@dataclass
class Look:
    """One detection as one detector sees it.

    Args:
        candidate: The detection.
        cam: (h, w) its map, at least 0.
        values: (3,) energy, insertion and deletion.
        drawn: (draws, 3) the same of the maps of shuffled detectors.
        curves: (1 + draws, 2, steps) insertion and deletion curves, its own first.
    """

    candidate: Candidate
    cam: Any
    values: Any
    drawn: Any
    curves: Any


@dataclass
class Found:
    """One image and the detections in it that are looked at.

    Args:
        picture: The image.
        shape: Height and width of the network's input.
        looks: For each detection the looks of the detectors, in their order.
        boxes: (K, 4) the box of each detection, the mean of the detectors' own.
        seen: For each detector, (N, 4) the boxes of all of its detections.
        only: For each detector, detections that it alone has.
        gates: For each detector, (name, location, (h, w) map) of each gate of positions.
    """

    picture: Picture
    shape: tuple[int, int]
    looks: list[list[Look]]
    boxes: Any
    seen: list[Any]
    only: list[int]
    gates: list[list[tuple[str, str, Any]]] = field(default_factory=list)


@dataclass
class Explained:
    """Everything that was measured.

    Args:
        names: Of the detectors, the base first where there is one.
        classes: Class number to name.
        settings: What was asked for.
        size: Height and width of the network's input.
        layers: For each detector, the rows whose features are looked at.
        images: What was found.
        without: Images without a detection, or without one that both have.
        skipped: Files that could not be read.
        left_out: Images beyond the limit.
        chance: For each detector, measure to :class:`.paired.Chance`.
        difference: Measure to :class:`.paired.Difference`, attention less base; empty without a base.
        fields: For each detector, (levels, h, w) mean receptive fields.
        strides: For each detector, of the levels.
        sides: For each detector, (images, levels, shares) sides in pixels.
        field_difference: For each level and share, attention less base; empty where levels differ.
        gates: For each detector, gate to how much more it lets through inside the boxes.
    """

    names: list[str]
    classes: dict[int, str]
    settings: Settings
    size: tuple[int, int]
    layers: list[list[int]]
    images: list[Found]
    without: list[str]
    skipped: list[str]
    left_out: int
    chance: list[dict[str, paired.Chance]] = field(default_factory=list)
    difference: dict[str, paired.Difference] = field(default_factory=dict)
    fields: list[Any] = field(default_factory=list)
    strides: list[list[int]] = field(default_factory=list)
    sides: list[Any] = field(default_factory=list)
    field_difference: list[list[paired.Difference]] = field(default_factory=list)
    gates: list[dict[str, tuple[str, paired.Difference]]] = field(default_factory=list)

    @property
    def detections(self) -> int:
        """How many detections were looked at."""
        return sum(len(f.looks) for f in self.images)


def explain(
    checkpoint: str | os.PathLike[str],
    pictures: Sequence[str],
    base: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    each: Callable[[Explained, Found], None] | None = None,
) -> Explained:
    """Look at what a detector looks at.

    Args:
        checkpoint: Of either host, or a bundle.
        pictures: Images, folders, globs or ``.txt`` lists.
        base: A second detector of the same classes, whose detections are matched.
        settings: What to do.
        each: Called with each image as soon as it is measured; maps and curves are dropped afterwards.

    Raises:
        YoloAttnError: torchcam is missing, a file is wrong, or nothing is detected.
    """
    cam.need_library()
    settings = settings or Settings()
    paths, others, left_out = _files(pictures, settings)
    readers = [Reader(open_source(p)) for p in ([base] if base is not None else []) + [checkpoint]]
    _check_classes(readers)
    last = readers[-1].source
    stride = max(r.source.stride for r in readers)
    pair = settings.imgsz or last.imgsz
    size = round_up((int(pair[0]), int(pair[-1])), stride)
    done = Explained(
        names=_names(readers), classes=last.names, settings=settings, size=size,
        layers=[cam.layers_of(r, settings.layers) for r in readers], images=[], without=[], skipped=[], left_out=left_out,
    )  # fmt: skip
    square = []
    for name, image in _images(paths, done):
        square.append(picture(name, image, size, stride, square=True).x)
        if len(square) == FIELDS:
            break
    drawn = [_shuffled(r, square[:CALIBRATION], settings) for r in readers]
    done.skipped[:] = others  # the rest is met once more
    with Progress(len(paths) + len(readers), "images") as progress:
        for name, image in _images(paths, done, progress):
            found = _found(readers, picture(name, image, size, stride), settings)
            if not found.looks:
                done.without.append(name)
                continue
            _measure(readers, drawn, done.layers, found)
            if each is not None:
                each(done, found)
                _forget(found)
            done.images.append(found)
        if not done.images:
            raise DataError(_nothing(done, base is not None))
        for reader in readers:
            maps, strides = receptive_field.fields(reader, square)
            done.fields.append(maps.mean(0))
            done.strides.append(strides)
            sides = [[[receptive_field.side(m, q) for q in receptive_field.SHARES] for m in image] for image in maps]
            done.sides.append(np.array(sides))
            progress.step()
    _conclude(done)
    return done


def _files(pictures: Sequence[str], settings: Settings) -> tuple[list[Path], list[str], int]:
    """Return the images, what is none, and how many images were left out."""
    found = dict.fromkeys(Files(*pictures).files)
    paths = [p for p in found if p.is_file() and p.suffix.lower() not in VIDEOS]
    others = [str(p) for p in found if p not in paths]
    if not paths:
        raise DataError(f"{' '.join(pictures)}: holds no image; explain does not take videos and streams")
    if len(paths) <= settings.limit:
        return paths, others, 0
    kept = np.random.default_rng(settings.seed).choice(len(paths), settings.limit, replace=False)
    return [paths[k] for k in sorted(kept)], others, len(paths) - settings.limit


def _images(paths: Sequence[Path], done: Explained, progress: Progress | None = None) -> Iterator[tuple[str, Any]]:
    for path in paths:
        image = read_image(path)
        if image is None:
            done.skipped.append(str(path))
        else:
            yield str(path), image
        if progress is not None:
            progress.step()


def _check_classes(readers: Sequence[Reader]) -> None:
    names = [r.source.names for r in readers]
    if names[0] != names[-1]:
        told = [f"{r.source.path} ({len(n)}: {', '.join(list(n.values())[:4])}{', ...' if len(n) > 4 else ''})" for r, n in zip(readers, names)]
        raise CheckpointError(
            f"{told[0]} detects other classes than {told[1]}. A base is trained on the same data set, without attention."
        )


def _names(readers: Sequence[Reader]) -> list[str]:
    """Names of the detectors: of the file, or of the last folder that tells two of them apart."""
    parts = [r.source.path.parts[::-1] for r in readers]
    if len(parts) == 1:
        return [parts[0][0]]
    for pair in zip(*parts):
        if pair[0] != pair[1]:
            return list(pair)
    return [f"{parts[0][0]} (base)", parts[1][0]]


def _shuffled(reader: Reader, square: Sequence[Any], settings: Settings) -> list[Reader]:
    import torch

    if not square:
        return []
    images = torch.cat(list(square))
    return [faithfulness.shuffled(reader, settings.seed + k, images) for k in range(settings.draws)]


def _found(readers: Sequence[Reader], seen: Picture, settings: Settings) -> Found:
    own = [r.detections(seen.x, conf=settings.conf, iou=settings.iou) for r in readers]
    groups = [list(pair) for pair in matched(own[0], own[1])] if len(own) == 2 else [[c] for c in own[0]]
    only = [len(o) - len(groups) for o in own]
    groups = groups[: settings.max_det]
    boxes = np.array([np.mean([c.box for c in g], 0) for g in groups]).reshape(-1, 4)
    looks = [[Look(c, None, None, None, None) for c in g] for g in groups]
    return Found(seen, (seen.x.shape[-2], seen.x.shape[-1]), looks, boxes, [np.array([c.box for c in o]).reshape(-1, 4) for o in own], only)


def _measure(readers: Sequence[Reader], drawn: Sequence[Sequence[Reader]], layers: Sequence[list[int]], found: Found) -> None:
    x = found.picture.x
    for side, reader in enumerate(readers):
        looks = [group[side] for group in found.looks]
        candidates = [look.candidate for look in looks]
        maps = np.stack([cam.maps(r, x, candidates, layers[side]) for r in (reader, *drawn[side])])
        for k, look in enumerate(looks):
            energies = [faithfulness.energy(m, found.boxes[k]) for m in maps[:, k]]
            look.cam = maps[0, k]
            look.curves = faithfulness.curves(reader, x, look.candidate, list(maps[:, k]))
            values = np.column_stack((energies, faithfulness.area(look.curves)))
            look.values, look.drawn = values[0], values[1:]
        found.gates.append(spatial.gate_maps(reader, x))


def _forget(found: Found) -> None:
    """Drop what is large, once it has been drawn."""
    found.picture = Picture(found.picture.name, None, None, found.picture.fit)
    for look in (look for group in found.looks for look in group):
        look.cam = None


def _nothing(done: Explained, two: bool) -> str:
    if not done.without:
        return f"none of {len(done.skipped)} files can be read as an image; the first is {done.skipped[0]}"
    what = "no detection that both detectors have (one class, IoU 0.5)" if two else "no detection"
    some = f" {len(done.skipped)} more files cannot be read." if done.skipped else ""
    return (
        f"{what} of confidence above {done.settings.conf:g} in {len(done.without)} images, the first {done.without[0]}. "
        f"Lower it with {option('conf')}, or give images that show what {done.names[-1]} was trained on.{some}"
    )


def _conclude(done: Explained) -> None:
    """Test what was measured, over images."""
    at = np.repeat(np.arange(len(done.images)), [len(f.looks) for f in done.images])
    sides = range(len(done.names))
    looks = [[group[s] for f in done.images for group in f.looks] for s in sides]
    own = [paired.per_image([look.values for look in side], at) for side in looks]
    chance = [paired.per_image([look.drawn for look in side], at) for side in looks]
    for s in sides:
        done.chance.append(
            {m: paired.beyond_chance(own[s][:, k], chance[s][:, :, k], more=more) for k, (m, more) in enumerate(MEASURES.items())}
        )
    if len(done.names) == 2:
        done.difference = {m: paired.compared(own[1][:, k], own[0][:, k], tests=len(MEASURES)) for k, m in enumerate(MEASURES)}
        if done.strides[0] == done.strides[1]:
            a, b = done.sides[1], done.sides[0]
            shape = a.shape[1:]
            done.field_difference = [
                [paired.compared(a[:, i, j], b[:, i, j], tests=math.prod(shape)) for j in range(shape[1])] for i in range(shape[0])
            ]
    done.gates = [spatial.inside_boxes(done.images, s) for s in sides]
