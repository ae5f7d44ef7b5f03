"""Load pretrained weights through the hosts' own functions, by logical layer where attention is involved.

Both hosts copy tensors of the same name and shape, and an inserted row gives most layers the name of another. The
ultralytics host always ends in ``BaseModel.load`` (``--weights``, ``pretrained=``, ``.load()``), classic YOLOv5 in
``intersect_dicts``; the replacements of both are here. Detectors without attention, and checkpoints of the same model,
are loaded as usual.

Weights to train from may have gaps, weights to detect with may not: a detector whose attention received no weights is
recorded until it is trained, and refused when the host would predict, validate or export with it.
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

# Whether the names in state dicts are already correct: ultralytics' `load` ends in `intersect_dicts`.
_loading: ContextVar[bool] = ContextVar("loading", default=False)

# Detectors whose attention has neither weights nor training: number of tensors, the first one, what was loaded.
_unfilled: WeakKeyDictionary[Any, tuple[int, str, str]] = WeakKeyDictionary()


def load(original: Callable[..., Any], self: Any, given: Any, *rest: Any, **more: Any) -> Any:
    """Replace the ultralytics host's ``BaseModel.load(self, weights, verbose=True)``.

    Args:
        original: The host's own method.
        self: The detector.
        given: A detector, or the content of a checkpoint.
        rest: Further positional arguments.
        more: Further keyword arguments.
    """
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
            weights = getattr(source, "weights_from", None)
            if weights:  # the report of those weights has been printed
                _tell_classes(after, weights)
            else:
                _tell(after)
            if gaps:
                announce(
                    "new attention does not begin as the identity and changes the pretrained features. Write "
                    "{start: identity} in its rows or use 'yolo-attn transfer' to begin with the detector as it was"
                )
    align.take_names(self, checkpoint.of(source).names, report)
    return result


def intersect(original: Callable[..., Any], da: Any, db: Any, exclude: Any = ()) -> Any:
    """Replace classic YOLOv5's ``intersect_dicts(da, db, exclude)``.

    Its arguments are state dicts; :mod:`.built` knows which detectors they belong to.

    Args:
        original: The host's own function.
        da: State dict of the source.
        db: State dict of the target.
        exclude: Parts of names to leave out.

    Returns:
        The tensors of `da` that fit, under the names of `db`.

    Raises:
        CheckpointError: The detector with attention is unknown, or its layers cannot be matched.
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
    """Check that a detector's attention was loaded or trained.

    Raises:
        CheckpointError: It was neither.
    """
    try:
        gaps = _unfilled.get(model)
    except TypeError:  # a path, or anything else that a host accepts as a model
        return
    if gaps is not None:
        count, first, source = gaps
        raise CheckpointError(
            f"{count} tensors of attention (first {first}) have no weights: {source} has none for them. The model would "
            f"detect with random weights. Train it first, load the checkpoint of this very model, or let attention "
            f"begin as the identity: {{start: identity}} in its rows."
        )


def trained(model: Any) -> None:
    """Record that a detector is being trained, after which its weights count as its own."""
    _unfilled.pop(model, None)


def _gaps(report: align.Report, model: Any) -> list[str]:
    """Tensors of attention without weights, where the attention does not begin as the identity."""
    missing = [*report.new_attention, *(k for k, _, _ in report.mismatch if k in report.attention)]
    if not missing:
        return []
    paths = tuple(f"{path}." for path in untrained.changing(model))
    return [k for k in missing if k.startswith(paths)] if paths else []


class Renamed:
    """Wraps a detector so that its state dict has the target's names.

    Args:
        model: The detector.
        report: The report of its alignment with the target.
        target: The target model.
    """

    def __init__(self, model: Any, report: align.Report, target: Any) -> None:
        self._model, self._report = model, report
        self._wanted = {k: tuple(v.shape) for k, v in target.state_dict().items()}

    def float(self) -> Renamed:
        """Convert to single precision, which the host does before reading."""
        self._model.float()
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors that fit, and those of another shape, which the host may fit by class name."""
        have = self._model.state_dict()
        names = {**self._report.mapping, **self._report.misfits}
        return {t: have[s] for t, s in names.items() if s in have}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _align(source: Any, target: Any) -> align.Report | None:
    """Return the report with the names to use, or None if the host's own names are right."""
    here, there = checkpoint.of(target), checkpoint.of(source)
    if here.model is None or not there.tensors:
        return None
    if not attention_in(here.model) and not (there.model is not None and attention_in(there.model)):
        return None
    try:
        report = align.align(there, here)
    except YoloAttnError:
        raise
    except Exception as exc:  # a detector of unknown structure
        raise CheckpointError(
            f"the layers of {there.file} cannot be matched with those of a detector with attention "
            f"({type(exc).__name__}: {exc}), and copying by name would put tensors into wrong layers. Build the "
            f"detector of that file, load into it, and call {PACKAGE}.transfer"
        ) from exc
    same = all(t == s for t, s in report.mapping.items())
    return None if same and not report.new and not report.mismatch and not report.unused else report


def _tell_classes(report: align.Report, weights: str) -> None:
    """Say what the number of classes changes for a detector that already has its weights."""
    there, here = report.classes
    if report.mismatch and there and here and there != here:
        announce(
            "the data set has %d classes and %s has %d: %d tensors of the head begin anew",
            here,
            weights,
            there,
            len(report.mismatch),
        )
    elif report.mismatch or report.new:
        _tell(report)


def _tell(report: align.Report) -> None:
    announce("%s", report.summary())
    if report.fraction < align.THRESHOLD:
        LOGGER.warning(
            "the weights are of another architecture: %.0f%% of the detector's tensors received weights",
            100 * report.fraction,
        )
    if report.rewired:
        LOGGER.warning("rows %s have other inputs than in the source", ", ".join(map(str, report.rewired)))
