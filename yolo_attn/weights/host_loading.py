"""The hosts' own loading of pretrained weights, by logical layer where attention is involved.

Both hosts copy what has the same name and shape, and an inserted row gives most layers another's name. Whatever
the way in, the ultralytics host ends in ``BaseModel.load`` (``--weights``, ``pretrained=``, ``.load()``), classic
YOLOv5 in ``intersect_dicts``; both are wrapped here. Detectors without attention, and a checkpoint of the very same
model, pass through untouched.

What is loaded to be trained may have gaps; what is loaded to detect may not: a detector whose attention got no weights
is remembered until it is trained, and refused where the host would predict, validate or export with it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Callable
from weakref import WeakKeyDictionary

from .._name import PACKAGE
from ..errors import CheckpointError, YoloAttnError
from ..log import LOGGER, announce
from . import align, built, checkpoint, untrained
from .attention import attention_in

__all__ = ["check_filled", "intersect", "load", "trained"]

# Whether the names in state dicts have been put right already: ultralytics' `load` ends in `intersect_dicts`.
_loading: ContextVar[bool] = ContextVar("loading", default=False)

# Detectors with attention that neither weights nor training reached: how many tensors, the first, what was loaded.
_unfilled: WeakKeyDictionary[Any, tuple[int, str, str]] = WeakKeyDictionary()


def load(original: Callable[..., Any], self: Any, given: Any, *rest: Any, **more: Any) -> Any:
    """Stand in for the ultralytics host's ``BaseModel.load(self, weights, verbose=True)``."""
    source = (given.get("ema") or given.get("model")) if isinstance(given, dict) else given
    trained(self)
    report = _align(source, self)
    renamed: Any = given
    if report is not None:
        renamed = Renamed(source, report, self)
        if isinstance(given, dict):
            renamed = {**given, "ema": renamed, "model": renamed}
    token = _loading.set(True)
    try:
        result = original(self, renamed, *rest, **more)
    finally:
        _loading.reset(token)
    if report is None:
        return result
    after = _align(source, self)  # the host may have rebuilt the class layers to the source's width
    if after is not None:
        after.source = str(getattr(source, "pt_path", None) or "the checkpoint")
        gaps = _gaps(after, self)
        if gaps:
            _unfilled[self] = len(gaps), gaps[0], after.source
        if more.get("verbose", rest[0] if rest else True):
            _tell(after)
            if gaps:
                announce(
                    "new attention does not begin as the identity and changes the pretrained features; "
                    "{start: identity} in its rows, or 'yolo-attn transfer', lets the detector begin as it was"
                )
    align.take_names(self, checkpoint.of(source).names, report)
    return result


def intersect(original: Callable[..., Any], da: Any, db: Any, exclude: Any = ()) -> Any:
    """Stand in for classic YOLOv5's ``intersect_dicts(da, db, exclude)``.

    It is given two state dicts; the detectors that they are of were noted when these were taken (:mod:`.built`).

    Raises:
        CheckpointError: A detector with attention, and it cannot be told which, or its layers cannot be matched.
    """
    if _loading.get():
        return original(da, db, exclude)
    target = built.owner(db, "target's")
    source = built.owner(da, "source's") if target is not None else None
    report = _align(source if source is not None else da, target) if target is not None else None
    by_name = original(da, db, exclude)
    if report is None or (by_name.keys() <= report.mapping.keys() and all(t == s for t, s in report.mapping.items())):
        return by_name
    _tell(report)
    moved = {t: da[s] for t, s in report.mapping.items() if s in da}
    return original(moved, db, exclude)


def check_filled(model: Any) -> None:
    """Refuse a detector that is about to detect with attention that was neither loaded nor trained.

    Raises:
        CheckpointError: It is one.
    """
    try:
        gaps = _unfilled.get(model)
    except TypeError:  # a path, or whatever else a host takes for a model
        return
    if gaps is not None:
        count, first, source = gaps
        raise CheckpointError(
            f"{count} tensors of attention (first {first}) have no weights: {source} has none for them. The model would "
            f"detect with random ones. Train it first, load the checkpoint of this very model, or let attention begin "
            f"as the identity: {{start: identity}} in its rows."
        )


def trained(model: Any) -> None:
    """Note that a detector's weights are its own from now on."""
    _unfilled.pop(model, None)


def _gaps(report: align.Report, model: Any) -> list[str]:
    """Tensors of attention that nothing came for, where it does not begin as the identity."""
    missing = [*report.new_attention, *(k for k, _, _ in report.mismatch if k in report.attention)]
    if not missing:
        return []
    paths = tuple(f"{path}." for path in untrained.changing(model))
    return [k for k in missing if k.startswith(paths)] if paths else []


class Renamed:
    """A detector whose state dict has the target's names; everything else is the detector's own."""

    def __init__(self, model: Any, report: align.Report, target: Any) -> None:
        self._model, self._report = model, report
        self._wanted = {k: tuple(v.shape) for k, v in target.state_dict().items()}

    def float(self) -> Renamed:
        """Convert to single precision, as the host asks before it reads."""
        self._model.float()
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return what fits, and what has another shape only: a class layer, which the host fits by class name."""
        have = self._model.state_dict()
        names = {**self._report.mapping, **self._report.misfits}
        return {t: have[s] for t, s in names.items() if s in have}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _align(source: Any, target: Any) -> align.Report | None:
    """Return how to rename, or None where the host's own way is right."""
    here, there = checkpoint.of(target), checkpoint.of(source)
    if here.model is None or not there.tensors:
        return None
    if not attention_in(here.model) and not (there.model is not None and attention_in(there.model)):
        return None
    try:
        report = align.align(there, here)
    except YoloAttnError:
        raise
    except Exception as exc:  # a detector of unknown build
        raise CheckpointError(
            f"the layers of {there.file} cannot be matched with those of a detector with attention "
            f"({type(exc).__name__}: {exc}), and copying by name would put tensors into other layers. Build the "
            f"detector of that file, load into it, and call {PACKAGE}.transfer"
        ) from exc
    same = all(t == s for t, s in report.mapping.items())
    return None if same and not report.new and not report.mismatch and not report.unused else report


def _tell(report: align.Report) -> None:
    announce("%s", report.summary())
    if report.fraction < align.THRESHOLD:
        LOGGER.warning(
            "the weights are of another architecture: %.0f%% of the detector's tensors received any",
            100 * report.fraction,
        )
    if report.rewired:
        LOGGER.warning("rows %s have other inputs than in the source", ", ".join(map(str, report.rewired)))
