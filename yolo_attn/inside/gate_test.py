"""Does the attention of a detector attend? Its gates over images, and the mAP with gates that do not look."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np

from ..errors import CheckpointError, DataError
from ..evaluation import figures, images
from ..evaluation.runs import of_classes
from ..evaluation.together import Difference, differences
from .frozen import frozen
from .gate_classes import ByClass, by_class, presence
from .recording import Gate, Gates, recording

__all__ = ["ATTENDS", "BARELY", "CONSTANT", "UNTOLD", "Measured", "Row", "check_classes", "chosen_classes", "measure"]

ATTENDS, BARELY, CONSTANT, UNTOLD = "attends", "barely", "constant", "cannot tell"
SMALL = 0.01  # of mAP50-95: what is worth less than this hardly pays for its layers
STILL = 0.99  # share of the channels and cells that must be still for a constant


@dataclass
class Row:
    """A row of the YAML with attention, or a layer where there are no rows.

    Args:
        location: Where it is.
        gates: Its gates over the images of the split.
        classes: Of each gate, by class; empty where the data has no labels.
        frozen: mAP50-95 with this row alone frozen at its mean; None where it was not asked.
        verdict: ``attends``, ``barely``, ``constant`` or ``cannot tell``.
    """

    location: str
    gates: list[Gate]
    classes: list[ByClass] = field(default_factory=list)
    frozen: Difference | None = None
    verdict: str = ""
    tolerance: float = 0.02

    @property
    def still(self) -> float:
        """Share of its channels and cells that are still; of several gates the least."""
        return min(self.shares)

    @property
    def shares(self) -> list[float]:
        """The share of each gate."""
        return [g.still(self.tolerance) for g in self.gates]


@dataclass
class Measured:
    """What was measured.

    Args:
        rows: In the order of the network.
        names: The classes.
        images: How many images of the split `split` were looked at.
        split: ``val`` or ``test``.
        train: How many training images the means were taken on; 0 where nothing was frozen.
        holding: How many images hold an object of each class.
        tolerance: Below which spread a channel is still.
        value: mAP50-95 as the detector is, with its 95 % interval over images; None where it was not asked.
        at_mean: With every gate at its mean.
        at_number: With one number a layer.
        without: Attention layers without a gate, with the reason.
        notes: Remarks for the user.
    """

    rows: list[Row]
    names: list[str]
    images: int
    split: str
    tolerance: float
    train: int = 0
    holding: list[int] = field(default_factory=list)
    value: tuple[float, float | None, float | None] | None = None
    at_mean: Difference | None = None
    at_number: Difference | None = None
    without: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(
    source: Any,
    data: str,
    *,
    imgsz: int = 0,
    device: str = "",
    batch: int = 16,
    most: int = 500,
    train_most: int = 200,
    tolerance: float = 0.02,
    test: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> Measured:
    """Measure the gates of a detector on a data set, and what freezing them costs.

    Args:
        source: An opened detector.
        data: The data set's YAML.
        imgsz: Side of the input in pixels; the detector's own when 0.
        device: As the hosts take it.
        batch: Images at a time.
        most: Images of the test or validation split at most, evenly spaced.
        train_most: Training images at most that means are taken on.
        tolerance: A channel whose spread over images is at most this is still.
        test: Whether to freeze the gates, for which the images need labels.
        tell: Called with lines of progress.

    Raises:
        CheckpointError: The detector has no attention, or none with a gate.
        DataError: The data set cannot be used, has no labels, or other classes than the detector.
    """
    gates = Gates(source.model, keep=most)
    if not gates:
        raise CheckpointError(f"{source.path}: {_why_none(gates)}")
    imgsz = imgsz or max(source.imgsz)
    split = figures.split_of(data).some(most)
    split = _of_classes(source, split, data)
    notes = []
    if test and source.task != "detect":
        test = False
        notes.append(f"mAP is measured for the task detect alone, and this is {source.task}: nothing was frozen")
    out = Measured([], split.names, 0, split.name, tolerance, notes=notes)
    if not test:
        truth = _look(source, gates, split, imgsz, device, batch, tell)
    else:
        truth = _freeze(source, gates, split, figures.split_of(data, name="train").some(train_most), data, imgsz, device, batch, tell, out)
    gone = [k for k, g in gates.items() if not g.images]
    for key in gone:
        gates.drop(key, "no forward pass went through it, or it could not be told what its gate is")
    for key in [k for k, g in gates.items() if not bool((g.moments.count > 0).any())]:
        gates.drop(key, "its gate is a finite number on no image: the weights or the features are broken")
    if not gates:
        raise CheckpointError(f"{source.path}: {_why_none(gates)}")
    out.without, out.images = dict(gates.without), len(truth)
    holds = presence(truth, len(split.names))
    out.holding = holds.sum(0).tolist()
    rows = {r.location: r for r in out.rows} or _rows(gates, tolerance)
    out.rows = [r for r in rows.values() if all(g.name in gates for g in r.gates)]
    for row in out.rows:
        if holds.any():
            row.classes = [by_class(_vectors(g), holds) for g in row.gates]
        row.verdict = verdict(row, nothing=out.value is not None and out.value[0] <= 2 * SMALL)
    out.notes += [_broken(g) for row in out.rows for g in row.gates if bool(g.not_finite.any())]
    if out.value is not None and out.value[0] <= 2 * SMALL:
        out.notes.append(
            f"the detector reaches mAP50-95 {out.value[0]:.4f} on these images: freezing could hardly cost anything, and "
            f"says nothing. Train it first"
        )
    return out


def _broken(gate: Gate) -> str:
    """What is said of a gate that is NaN or infinite in some channels of some images."""
    n = gate.not_finite
    channels = [k for k, images in enumerate(n.tolist()) if images]
    shown = ", ".join(map(str, channels[:5])) + (", ..." if len(channels) > 5 else "")
    of = f"in {len(channels)} of {len(n)} channels ({shown})" if len(n) > 1 else "at some position"
    return (
        f"{gate.location}: its gate is NaN or infinite {of}, on {int(n.max())} of {gate.images} images: the weights or the "
        f"features are broken there, and all figures of this gate are of the rest"
    )


def _why_none(gates: Gates) -> str:
    if not gates.without:
        return "has no attention of the kit, so there is no gate to look at; 'yolo-attn list' shows the modules"
    layer, why = next(iter(gates.without.items()))
    return f"its attention has no gate: {layer}: {why}"


def _of_classes(source: Any, split: figures.Split, data: str) -> figures.Split:
    """The split with the detector's classes."""
    return of_classes(split, list(source.names.values()), data, source.path)


def _rows(gates: Gates, tolerance: float) -> dict[str, Row]:
    """The gates by row; by layer where the network has no rows."""
    out: dict[str, Row] = {}
    for gate in gates.values():
        p = gate.place
        at = f"row {p.row} ({p.row_kind})" if p.row is not None else f"{p.layer} ({p.kind})"
        out.setdefault(at, Row(at, [], tolerance=tolerance)).gates.append(gate)
    return out


def _look(
    source: Any, gates: Gates, split: figures.Split, imgsz: int, device: str, batch: int, tell: Callable[[str], None]
) -> list[Any]:
    """Run over a split with the gates recorded; return its objects."""
    import torch

    truth: list[Any] = []
    for x, _, objects in figures.batches(source, split, imgsz, device, batch):
        with torch.no_grad(), recording(gates):
            source.model(x)
        truth.extend(objects)
        tell(f"{split.name}: {len(truth)} of {len(split.files)} images")
    return truth


def _freeze(
    source: Any, gates: Gates, split: figures.Split, train: figures.Split, data: str, imgsz: int, device: str, batch: int,
    tell: Callable[[str], None], out: Measured,
) -> list[Any]:  # fmt: skip
    """Take the means on training images, then run over the split in every way; return its objects."""
    if not split.has_labels():
        raise DataError(
            f"{data}: '{split.name}:' has {len(split.files)} images and no labels, so that there is no mAP. Gates alone "
            f"need none: --no-test"
        )
    means = Gates(source.model, keep=0)
    out.train = len(_look(source, means, train, imgsz, device, batch, tell))
    seen = {k: g for k, g in means.items() if g.images}
    rows = {r.location: r for r in _rows(gates, out.tolerance).values() if all(g.name in seen for g in r.gates)}
    means_of = {k: g.mean for k, g in seen.items()}
    ways: list[Callable[[], Any]] = [
        functools.partial(recording, gates),
        functools.partial(frozen, source.model, means_of),
        functools.partial(frozen, source.model, {k: g.number for k, g in seen.items()}),
        *(functools.partial(frozen, source.model, {g.name: means_of[g.name] for g in r.gates}) for r in rows.values()),
    ]
    alone = len(rows) == 1  # then freezing it is freezing every gate
    if alone:
        ways.pop()
    many = f"in {len(ways)} ways"
    truth, found = figures.detect_ways(
        source, split, imgsz, ways, device, batch, lambda done: tell(f"{split.name}, {many}: {done} of {len(split.files)} images")
    )
    matches = [images.match(truth, each, len(split.names)) for each in found]
    ends = images.interval(matches[0]) or (None, None)
    told = differences(matches[0], matches[1:])
    low, high = ends
    out.value = (_map(matches[0]), None if low is None else max(low, 0.0), None if high is None else min(high, 1.0))
    out.at_mean, out.at_number = told[:2]
    for row, one in zip(rows.values(), told[:1] if alone else told[2:]):
        row.frozen = one
    out.rows = list(rows.values())
    return truth


def _map(matches: images.Matches) -> float:
    return float(images._mean(images.ap(matches, np.ones((1, matches.images))))[0])


def _vectors(gate: Gate) -> Any:
    """Each image's gates as a vector, (N, C): its channels, or its cells where it has one channel."""
    maps = gate.axes == "spatial"
    return (gate.maps.flatten(1) if maps else gate.channels).numpy()


def verdict(row: Row, *, nothing: bool = False) -> str:
    """Say whether a row attends.

    It attends where freezing it alone changes mAP beyond what the choice of images explains; it is a constant where its
    channels and cells are still; it barely attends where the interval of what freezing it changes lies within 0.01 of 0.
    Else these images do not tell, nor do any of a detector that finds next to nothing.
    """
    f = row.frozen
    if f is not None and f.tells:
        return ATTENDS
    if row.still >= STILL:
        return CONSTANT
    if nothing:
        return UNTOLD
    return BARELY if f is not None and f.low is not None and f.high is not None and f.low > -SMALL and f.high < SMALL else UNTOLD


def check_classes(source: Any, data: str, asked: Sequence[str], most: int) -> None:
    """Refuse a class to show that there is none of, before anything is measured.

    Raises:
        DataError: There is no such class, or no image that will be looked at holds it.
    """
    if not asked:
        return
    split = _of_classes(source, figures.split_of(data).some(most), data)
    held = split.classes()
    for name in asked:
        if name not in split.names:
            raise DataError(f"no class is called {name!r}. Classes: {', '.join(split.names)}")
        if split.names.index(name) not in held:
            raise DataError(f"no image of '{split.name}:' holds a {name!r}, so that it has no gates of its own")


def chosen_classes(measured: Measured, asked: Sequence[str]) -> list[int]:
    """Return the classes to show: the named ones, else the six that most images hold."""
    if asked:
        return [measured.names.index(name) for name in asked]
    order = sorted(range(len(measured.names)), key=lambda k: -measured.holding[k])
    return sorted(k for k in order[:6] if measured.holding[k])
