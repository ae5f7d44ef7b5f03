"""Training schedules of attention: freeze the base for some epochs, scale the learning rate of attention.

Two numbers, which work with the unchanged trainers of both hosts:

- in a model YAML: ``schedule: {freeze_base: 3, lr_new: 10.0}``;
- on a command line: ``train_detect.py --freeze base:3 --lr-new 10``, ``yolo-attn run --freeze base:3 train.py ...``,
  ``yolo-attn yolo --lr-new 10 train ...``;
- from Python: :func:`plan`.

A training stores them in its model's dictionary, and so in its checkpoints, for resumed runs. The optimizer's parameter
groups are left as the host created them: its warm-up addresses them by number, and its checkpoints must match them.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from dataclasses import asdict
from typing import Any

from ..errors import UsageError, first_line, shown
from ..log import announce
from ..model_yaml.schedule import FREEZE_BASE, KEY, VARIABLE, Schedule, ask, frozen_epochs, plan
from ..weights import host_loading

__all__ = [
    "FREEZE_BASE",
    "KEY",
    "VARIABLE",
    "Pace",
    "Schedule",
    "ask",
    "before_batch",
    "before_loop",
    "check_followed",
    "frozen_epochs",
    "plan",
]

# -- the hosts' training loops -------------------------------------------------------------------------------------


def before_batch(trainer: Any) -> None:
    """Called before each batch of an ultralytics trainer, in every process of a run."""
    if "_yolo_attn_pace" not in vars(trainer):
        host_loading.trained(_plain(trainer.model))
        trainer._yolo_attn_pace = _begin(trainer.model, trainer.start_epoch, trainer.ema)
    if trainer._yolo_attn_pace is not None:
        trainer._yolo_attn_pace.settle(trainer.epoch, trainer.optimizer)


def before_loop(model: Any) -> None:
    """Called before the training loop of classic YOLOv5.

    Args:
        model: The model to train, which every process of a run passes to its loss.

    Raises:
        UsageError: A schedule was requested, but the loop's optimizer or scheduler cannot be found.
    """
    d = getattr(_plain(model), "yaml", None)
    if not isinstance(d, dict) or (KEY not in d and not os.environ.get(VARIABLE)):
        return
    loop = _loop(_plain(model))
    pace = _begin(model, loop.start_epoch, loop.ema)
    if pace is None:
        return
    optimizer = loop.optimizer
    pace.settle(loop.start_epoch, optimizer)
    zero_grad = optimizer.zero_grad

    # Called in each epoch after `model.train()` and before the first batch, and after each step.
    @functools.wraps(zero_grad)
    def settled(*args: Any, **kwargs: Any) -> Any:
        pace.settle(loop.epoch, optimizer)
        return zero_grad(*args, **kwargs)

    optimizer.zero_grad = settled


class Loop:
    """The state of a training loop of classic YOLOv5.

    Args:
        optimizer: Its optimizer.
        scheduler: The learning rate scheduler of that optimizer, stepped at the end of each epoch.
        ema: The averaged detector; may be None.
        start_epoch: The loop's first epoch; None if it has no such variable.
        begun: Whether the training resumes a schedule that it has followed before.
    """

    def __init__(self, optimizer: Any, scheduler: Any, ema: Any, start_epoch: Any, begun: bool) -> None:
        self.optimizer, self.scheduler, self.ema = optimizer, scheduler, ema
        last = scheduler.last_epoch
        if not isinstance(start_epoch, int):  # `last` is 0 in a new scheduler too
            start_epoch = last + 1 if begun or last else 0
        self.start_epoch, self._last = start_epoch, last

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return int(self.start_epoch + self.scheduler.last_epoch - self._last)


def _loop(detector: Any) -> Loop:
    """Return the state of the loop that trains `detector`, from the local variables of the host's training function.

    This is the only place that reads callers' variables. They are recognised by type, not by name.
    """
    from torch.optim import Optimizer

    own = {id(p) for p in detector.parameters()}
    frame: Any = sys._getframe(2)
    while frame is not None:
        names = frame.f_locals
        held = {**getattr(names.get("self"), "__dict__", {}), **names}
        for optimizer in (v for v in held.values() if isinstance(v, Optimizer)):
            if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
                continue
            paces = {
                n: v for n, v in held.items() if _fields(v).get("optimizer") is optimizer and hasattr(v, "last_epoch")
            }
            scheduler = paces.get("scheduler") or (next(iter(paces.values())) if len(paces) == 1 else None)
            if scheduler is not None:
                ema = next((v for v in held.values() if _is_average(v)), None)
                begun = bool((detector.yaml.get(KEY) or {}).get("begun"))
                return Loop(optimizer, scheduler, ema, names.get("start_epoch"), begun)
        frame = frame.f_back
    raise UsageError(
        "a schedule was requested (freeze_base, lr_new), but this training loop has no local variables with an optimizer "
        "of the model's parameters and its learning rate scheduler. Create both before ComputeLoss(model), as YOLOv5's "
        "train.py does, or train without --freeze, --lr-new and 'schedule' in the YAML"
    )


def _fields(value: Any) -> dict[str, Any]:
    return getattr(value, "__dict__", {}) if not isinstance(value, type) else {}


def _is_average(value: Any) -> bool:
    from torch import nn

    return isinstance(_fields(value).get("ema"), nn.Module)


def check_followed() -> None:
    """Check, after a script has ended, that a training has followed the requested schedule.

    Raises:
        UsageError: None has.
    """
    if os.environ.get(VARIABLE) and not _followed:
        raise UsageError(
            "--freeze and --lr-new had no effect: the script did not create YOLOv5's ComputeLoss, by which a training is "
            "recognised. Train with train.py or segment/train.py, or omit the two options"
        )


_followed: list[bool] = []


def _asked(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{VARIABLE}={shown(text)}: is not JSON: {first_line(exc)}") from exc


def _begin(model: Any, start_epoch: int, ema: Any) -> Pace | None:
    """Apply the schedule of a training that begins or is resumed; return None if it has none."""
    detector = _plain(model)
    d = getattr(detector, "yaml", None)
    if not isinstance(d, dict):
        return None
    asked = os.environ.get(VARIABLE)
    schedule = Schedule.of({KEY: _asked(asked)} if asked else d)
    if schedule is not None and schedule.begun and start_epoch == 0:
        announce("ignoring the schedule of the training that these weights come from; request it again to use it")
        schedule = None
    if schedule is None and KEY not in d:
        return None
    kept = {k: v for k, v in d.items() if k != KEY}
    if schedule is not None:
        kept[KEY] = {**asdict(schedule), "begun": True}
    for holder in (detector, _plain(getattr(ema, "ema", None))):
        if holder is not None:
            holder.yaml = dict(kept)  # a new dictionary, as the old one may be shared
    _followed[:] = [True]
    return None if schedule is None else Pace(schedule, model)


# -- a schedule at work --------------------------------------------------------------------------------------------


class Pace:
    """A schedule applied to one model.

    Args:
        schedule: The schedule.
        model: The detector, also wrapped in DDP, DataParallel or ``torch.compile``.
    """

    def __init__(self, schedule: Schedule, model: Any) -> None:
        from torch.nn.modules.batchnorm import _BatchNorm
        from torch.nn.parallel import DistributedDataParallel

        from ..weights.attention import attention_in

        self.schedule = schedule
        detector = _plain(model)
        new = tuple(path + "." for path in attention_in(detector))
        first = (*new, f"model.{len(detector.model) - 1}.")  # trained while the base is frozen
        parameters = [(n, p) for n, p in detector.named_parameters() if p.requires_grad]
        self._new = [p for n, p in parameters if n.startswith(new)] if new else []
        self._base = [p for n, p in parameters if not n.startswith(first)]
        self._norms = [
            m for n, m in detector.named_modules() if isinstance(m, _BatchNorm) and not f"{n}.".startswith(first)
        ]
        # DDP was created before this, and waits for the gradient of each of its parameters.
        self._synchronized = isinstance(model, DistributedDataParallel)
        self._hooks: list[Any] = []
        self._frozen = False
        self._optimizer: Any = None
        if schedule.lr_new != 1.0 and not self._new:
            announce("lr_new has no effect: the model has no attention")

    def settle(self, epoch: int, optimizer: Any) -> None:
        """Freeze or unfreeze the base for an epoch, counted from 0; call after ``model.train()``.

        Raises:
            UsageError: torch is too old for the schedule.
        """
        if optimizer is not self._optimizer:  # a host may create another one after running out of memory
            self._optimizer = optimizer
            self._attach(optimizer)
        frozen = epoch < self.schedule.freeze_base
        if frozen != self._frozen:
            self._freeze() if frozen else self._thaw()
            self._frozen = frozen
            last = self.schedule.freeze_base
            if frozen:
                what = "attention and head" if self._new else "the head alone: the model has no attention"
                announce("epochs %d to %d train %s", epoch + 1, last, what)
            else:
                announce("from epoch %d on, all layers train", epoch + 1)
        if frozen:
            for norm in self._norms:
                norm.eval()

    def _attach(self, optimizer: Any) -> None:
        factor = self.schedule.lr_new
        if factor != 1.0 and self._new:
            lengthen(optimizer, self._new, factor)
            announce("the learning rate of attention (%d tensors) is %g times that of the rest", len(self._new), factor)
        if self._synchronized and self.schedule.freeze_base:
            _check_hooks(optimizer)
            optimizer.register_step_pre_hook(self._withhold)

    def _freeze(self) -> None:
        for p in self._base:
            if self._synchronized:
                self._hooks.append(p.register_hook(_zero))  # before gradients are reduced and clipped
            else:
                p.requires_grad_(False)
            p.grad = None

    def _thaw(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for p in self._base:
            p.requires_grad_(True)

    def _withhold(self, *_: Any) -> None:
        """Remove the zero gradients of frozen parameters, which weight decay and momentum would still change."""
        if self._frozen:
            for p in self._base:
                p.grad = None


def lengthen(optimizer: Any, parameters: list[Any], factor: float) -> None:
    """Scale the change of `parameters` in every step of an optimizer by `factor`.

    This equals a learning rate `factor` times as high for every optimizer whose update is proportional to it, with or
    without weight decay and momentum, however the parameters are grouped.

    Raises:
        UsageError: torch is older than 2.0.
    """
    _check_hooks(optimizer)
    import torch

    before: list[Any] = []

    def note(*_: Any) -> None:
        before[:] = [p.detach().clone() if p.grad is not None else None for p in parameters]

    def stretch(*_: Any) -> None:
        with torch.no_grad():
            for p, old in zip(parameters, before):
                if old is not None:
                    p.copy_(old + factor * (p - old))
        before.clear()

    optimizer.register_step_pre_hook(note)
    optimizer.register_step_post_hook(stretch)


def _check_hooks(optimizer: Any) -> None:
    if not hasattr(optimizer, "register_step_pre_hook"):
        raise UsageError("--lr-new, and --freeze base on several GPUs, need torch 2.0 or later")


def _zero(gradient: Any) -> Any:
    import torch

    return torch.zeros_like(gradient)


def _plain(model: Any) -> Any:
    """Return the detector inside DDP, `torch.compile` and distillation wrappers."""
    for wrapper in ("module", "_orig_mod", "student_model"):
        model = getattr(model, wrapper, model)
    return model
