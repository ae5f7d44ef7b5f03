"""Fold attention away that learned a constant: the detector without it, with the constants in its convolutions.

:func:`fold` records the gates of a detector over training images and multiplies those that do not move into the layers that
read them (:mod:`.fold_network`). What comes out is an ordinary checkpoint and YAML without these rows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..detectors.opening import open_source
from ..detectors.source import Source
from ..errors import CheckpointError, DataError, ExportError, FileError, UsageError
from ..export.onnx import count_nodes
from ..files import expand, publish, write_text
from ..log import announce
from ..model_yaml import find
from ..system.drafts import scratch
from ..weights import start_from
from ..weights.attention import attention_used
from ..words import option
from .fold_measure import labelled, measured
from .fold_network import fold_network
from .fold_rows import Row, as_yaml, rows_of

__all__ = ["Fate", "FoldResult", "constant_gates", "fold"]

LEAST_IMAGES = 10  # with fewer, a gate that moves may seem constant
IMAGES = 500


@dataclass(frozen=True)
class Fate:
    """What became of one row.

    Args:
        row: Its number in the detector that was given.
        module: Its module.
        folded: Whether it is folded away.
        moves: The furthest that one of its channels' gates is from its mean, over images; None without such a gate.
        why: Why it stays; empty for a folded row.
    """

    row: int
    module: str
    folded: bool
    moves: float | None
    why: str


@dataclass
class FoldResult:
    """What :func:`fold` found and wrote.

    Args:
        weights: The detector that was given.
        output: The checkpoint or bundle without the folded rows; None if there is none.
        cfg: Its model YAML; None likewise.
        tolerance: As given.
        images: Images that the gates were recorded on.
        rows: Every row with attention.
        difference: Of the outputs from those with constant gates, relative to their scale.
        map: mAP50-95 ``before`` and ``after``, ``change``, its 95 % ``interval`` over images or None, ``split`` and
            ``images``; empty where it was not measured.
        nodes: Nodes of the ONNX graph ``before`` and ``after``; empty where it was not exported.
        notes: Remarks for the user.
    """

    weights: str
    output: str | None
    cfg: str | None
    tolerance: float
    images: int
    rows: list[Fate]
    difference: float = 0.0
    map: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def folded(self) -> list[Fate]:
        """The rows that were folded."""
        return [r for r in self.rows if r.folded]


def fold(
    weights: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    tolerance: float = 0.02,
    output: str | os.PathLike[str] | None = None,
    imgsz: int | None = None,
    train_images: int = IMAGES,
    batch: int = 16,
    device: str = "",
    force: bool = False,
    tell: Callable[[str], Any] = lambda line: announce("%s", line),
) -> FoldResult:
    """Fold the attention of a detector away whose gates are constant over images.

    Args:
        weights: A checkpoint of either host, or a bundle; not fused.
        data: Data set YAML; gates are recorded on its train images, mAP is measured on its val images.
        tolerance: The furthest that the gate of any channel may be from its mean in any image, 0 to 1.
        output: The file to write, ``.pt`` or ``.bundle``; beside `weights`, with ``_folded``, when absent. The model
            YAML is written beside it.
        imgsz: Side of the images in pixels; as trained when absent.
        train_images: How many train images at most, evenly spaced.
        batch: Images at a time.
        device: ``cpu``, a GPU's number, or nothing for a GPU where there is one.
        force: Overwrite the files.
        tell: Called with each line of progress.

    Returns:
        What became of each row; nothing is written if none was folded.

    Raises:
        UsageError: An option is out of range, or the output's name ends in neither.
        FileError: A file exists, or cannot be written.
        CheckpointError: `weights` is not a detector's checkpoint, has no attention, or is fused.
        DataError: The data set cannot be used, or has fewer than ten train images.
    """
    _check(tolerance, imgsz, train_images, batch)
    target = _target(Path(os.path.expanduser(weights)), output, force)
    source = open_source(weights)
    if source.path.suffix in (".yaml", ".yml", ""):
        raise UsageError(f"{weights}: is a model YAML, whose attention has not learned anything yet; give a checkpoint")
    if target.suffix == ".bundle" and source.host != "ultralytics":
        raise UsageError(f"{target}: bundles are for detectors of ultralytics, this one is of {source.host}; write a .pt")
    d = source.model.yaml
    letter, scales = find.split_scale(target.stem)[1], d.get("scales") or {}
    scale = d.get("scale") or next(iter(scales), "")
    if scales and letter not in ("", scale):
        raise UsageError(f"{target.name}: the name says scale {letter}, and the detector is of scale {scale}; choose another")
    rows = rows_of(source.model, d)
    if not rows:
        raise CheckpointError(f"{weights}: has no attention that could be folded")
    val = labelled(source, str(data)) if source.task == "detect" else None
    gates, seen = _recorded(source, str(data), imgsz, train_images, batch, device, tell)
    constants, moves, why = constant_gates(gates, rows, tolerance)
    tell(f"{len(rows)} rows with attention, {sum(all(p in constants for p in r.layers) for r in rows)} with a constant gate")
    made = fold_network(source.model, constants, name=target.with_suffix(".yaml").name, tell=lambda r: tell(f"folding {r}"))
    done = {r.index for r in made.rows}
    fates = [
        Fate(r.index, r.name, r.index in done, moves.get(r.index), "" if r.index in done else why.get(r.index) or made.kept[r.index])
        for r in rows
    ]
    result = FoldResult(str(weights), None, None, tolerance, seen, fates, made.difference)
    if made.network is None:
        return result
    with scratch(target.parent) as folder:
        draft = folder / target.name
        _save(source, made.network, draft)
        after = open_source(draft)  # what is measured is what is written
        if val is not None:
            tell(f"measuring mAP on {len(val.files)} val images, before and after")
            result.map = measured(source, after, val, imgsz, batch, device)
        else:
            result.notes.append(f"mAP is measured for detectors; this is a model for '{source.task}'")
        tell("counting the nodes of the ONNX graph, before and after")
        try:
            result.nodes = {"before": count_nodes(source), "after": count_nodes(after)}
        except ExportError as exc:
            result.notes.append(f"the nodes are not counted: {exc}")
        cfg = target.with_suffix(".yaml")
        left = attention_used(made.network)
        rows_of_it = f"{len(done)} rows" if len(done) > 1 else "one row"
        write_text(cfg, as_yaml(made.d, f"{source.path.name}, the constant gates of {rows_of_it} folded into the layers that read them"))
        publish(draft, target)
    result.output, result.cfg = str(target), str(cfg)
    if not left:
        result.notes.append("no attention is left: the checkpoint loads without yolo_attn too")
    for spec in (made.d.get("register") or {}).values():
        file = str(spec.get("from") if isinstance(spec, Mapping) else spec).rpartition(":")[0]
        if file.endswith(".py") and not (target.parent / file).is_file():
            result.notes.append(f"{cfg.name} names {file}, which is not beside it: put it there, or give --plugin")
    return result


def _check(tolerance: float, imgsz: int | None, images: int, batch: int) -> None:
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance <= 1:
        raise UsageError(f"{option('tolerance')} must be a number from 0 to 1, got {tolerance!r}")
    for name, value in (("imgsz", imgsz), ("train_images", images), ("batch", batch)):
        if value is not None and value < 1:
            raise UsageError(f"{option(name)} must be at least 1, got {value}")
    if images < LEAST_IMAGES:
        raise UsageError(f"{option('train_images')} must be at least {LEAST_IMAGES}: over fewer, any gate may seem constant")


def _target(weights: Path, output: str | os.PathLike[str] | None, force: bool) -> Path:
    suffix = ".bundle" if weights.suffix.lower() == ".bundle" else ".pt"
    target = weights.with_name(f"{weights.stem}_folded{suffix}") if output is None else expand(output)
    if target.suffix not in (".pt", ".bundle"):
        raise UsageError(f"the output must be a .pt or a .bundle file, got {target}")
    if target.resolve() == weights.resolve():
        raise UsageError(f"{target}: is the detector itself; choose another name")
    for file in (target, target.with_suffix(".yaml")):
        if file.exists() and not force:
            raise FileError(f"{file} exists. Choose another name with {option('output')}, or add {option('force', True)}.")
    if not target.parent.is_dir():
        raise FileError(f"the folder {target.parent} does not exist")
    return target


# -- which gates are constant --------------------------------------------------------------------------------------


def _recorded(
    source: Source, data: str, imgsz: int | None, most: int, batch: int, device: str, tell: Callable[[str], Any]
) -> tuple[Any, int]:
    """Record the gates over train images; return them and how many images those were."""
    import torch

    from ..evaluation.figures import device_of, split_of
    from ..runtime.image import blob, letterbox, round_up
    from .progress import Progress
    from .recording import record_gates

    split = split_of(data, name="train").some(most)
    if len(split.files) < LEAST_IMAGES:
        raise DataError(f"{data}: 'train:' has {len(split.files)} images; over fewer than {LEAST_IMAGES}, any gate may seem constant")
    tell(f"recording gates on {len(split.files)} train images")
    where = device_of(device)
    size = round_up((imgsz, imgsz) if imgsz else source.imgsz, source.stride, tell)
    model = source.model.to(where)
    waiting: list[Any] = []
    seen = 0
    with record_gates(model, keep=0) as gates, torch.no_grad(), Progress(len(split.files), "images", "gates") as progress:

        def flush() -> None:
            if waiting:
                model(torch.from_numpy(blob(waiting)).to(where))
                progress.step(len(waiting))
                waiting.clear()

        for image, _ in split.images():
            waiting.append(letterbox(image, size)[0])
            seen += 1
            if len(waiting) == batch:
                flush()
        flush()
    model.cpu()
    if seen < LEAST_IMAGES:
        raise DataError(f"{data}: only {seen} images of 'train:' can be read; at least {LEAST_IMAGES} are needed")
    return gates, seen


def constant_gates(
    gates: Any, rows: list[Row], tolerance: float
) -> tuple[dict[str, Any], dict[int, float], dict[int, str]]:
    """Tell which layers' gates are constant.

    Args:
        gates: What :func:`.recording.record_gates` has recorded.
        rows: The rows with attention.
        tolerance: As of :func:`fold`.

    Returns:
        (C,) the constant of each layer that has one, by the layer's name; how far the gates of each row move, where
        they can be told; and why a row is not constant, by its number.
    """
    constants: dict[str, Any] = {}
    moves: dict[int, float] = {}
    why: dict[int, str] = {}
    for row in rows:
        furthest = 0.0
        for layer in row.layers:
            gate = gates.get(layer) if layer in gates else None
            reason = _no_constant(gates, layer, gate)
            if reason or gate is None:
                why.setdefault(row.index, reason)
                continue
            apart, channel = _furthest(gate)
            if not math.isfinite(apart):
                why.setdefault(row.index, "its gate is not a finite number on every image")
                continue
            furthest = max(furthest, apart)
            if apart <= tolerance:
                constants[layer] = gate.mean.flatten()
            else:
                inner = layer.split(".", 2)[2:]
                at = f" of {inner[0]}" if inner else ""
                why.setdefault(row.index, f"its gate{at} moves: in channel {channel} by up to {apart:.2g} from its mean over images")
        if row.index not in why or furthest:
            moves[row.index] = furthest
    return constants, moves, why


def _no_constant(gates: Any, layer: str, gate: Any) -> str:
    """Why a layer has no gate of the channels alone; empty if it has one."""
    if layer in gates.without:
        return str(gates.without[layer])
    several = [k.rpartition("/")[2] for k in gates if k.rpartition("/")[0] == layer]
    if several:
        return f"it has several gates ({', '.join(several)}), and only one gate for each channel can go into a convolution"
    if gate is None or not gate.images:
        return "its gate was not seen on any image"
    if gate.axes != "channel":
        each = "position" if gate.axes == "spatial" else "channel and position"
        return f"its gate has a number for each {each}, and the weights of a convolution serve all positions"
    if not gate.place.alone:
        return "it returns more than the product of its input and a gate"
    return ""


def _furthest(gate: Any) -> tuple[float, int]:
    """The furthest that a channel's gate is from its mean in an image, and the channel."""
    import torch

    apart = torch.maximum(gate.most - gate.mean, gate.mean - gate.least).flatten()
    channel = int(apart.argmax())
    return float(apart[channel]), channel


# -- what comes out ------------------------------------------------------------------------------------------------


def _save(source: Source, network: Any, path: Path) -> None:
    if path.suffix == ".bundle":
        from ..detectors.bundle import save

        save(Source(path, source.host, network, source.task, source.imgsz), path)
        return
    arguments = getattr(source.model, "args", None) or {}
    arguments = dict(arguments if isinstance(arguments, Mapping) else vars(arguments))
    kept = {k: v for k, v in arguments.items() if k not in ("model", "resume", "pretrained", "save_dir")}
    if source.host != "ultralytics":
        kept = {"imgsz": max(source.imgsz)}  # classic networks have no arguments: what an export takes for its size
    network.pt_path = None
    start_from.save(network.float(), path, classic=source.host != "ultralytics", arguments=kept)
