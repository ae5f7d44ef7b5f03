"""Train what is new first: freeze the base for some epochs, another learning rate for attention.

Two numbers in the model dictionary, under ``schedule``, where every checkpoint keeps them and a resumed run finds
them again. They act through callbacks on the ultralytics host's trainer and leave its optimizer's parameter groups
alone, so that a run can also be resumed without the kit's trainer.

.. code-block:: yaml

   schedule: {freeze_base: 3, lr_new: 10.0}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError, UsageError, did_you_mean
from .log import announce

__all__ = ["Schedule", "follow", "plan"]

KEY = "schedule"


@dataclass
class Schedule:
    """What a run does differently; picklable, so that it reaches the workers of a run on several GPUs.

    Args:
        freeze_base: For so many epochs only attention and the detection head train. Frozen rows keep their batch
            norm's statistics as well.
        lr_new: The learning rate of attention relative to the rest. Every update of these parameters is this many
            times as long, whatever the optimizer, the warm-up and the schedule.
    """

    freeze_base: int = 0
    lr_new: float = 1.0
    _frozen: list[str] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: Negative, or no number.
        """
        if isinstance(self.freeze_base, bool) or not isinstance(self.freeze_base, int) or self.freeze_base < 0:
            raise UsageError(f"freeze_base is a number of epochs, got {self.freeze_base!r}")
        if isinstance(self.lr_new, bool) or not isinstance(self.lr_new, (int, float)) or not self.lr_new > 0:
            raise UsageError(f"lr_new is a positive factor, got {self.lr_new!r}")

    @classmethod
    def of(cls, d: Mapping[str, Any] | None) -> Schedule | None:
        """Read it from a model dictionary; None if there is none.

        Raises:
            ConfigError: An unknown word under ``schedule``.
            UsageError: A number that makes no sense.
        """
        given = (d or {}).get(KEY)
        if not given:
            return None
        if not isinstance(given, Mapping):
            raise ConfigError(f"'{KEY}' maps freeze_base and lr_new to numbers, got {given!r}")
        known = ("freeze_base", "lr_new")
        for word in given:
            if word not in known:
                raise ConfigError(
                    f"'{KEY}' has no '{word}'.{did_you_mean(str(word), known)} It has freeze_base, lr_new."
                )
        return cls(**given)

    # -- callbacks of the host's trainer ---------------------------------------------------------------------------

    def on_train_start(self, trainer: Any) -> None:
        """Let the updates of attention be `lr_new` times as long."""
        if self.lr_new == 1.0:
            return
        new = _new_parameters(_plain(trainer.model))
        if not new:
            announce("lr_new has no effect: the model has no attention")
            return
        lengthen(trainer.optimizer, new, self.lr_new)
        announce("the learning rate of attention (%d tensors) is %g times that of the rest", len(new), self.lr_new)

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Freeze the base, or let it go."""
        model = _plain(trainer.model)
        if trainer.epoch < self.freeze_base:
            if not self._frozen:
                keep = _trained_first(model)
                for name, p in model.named_parameters():
                    if p.requires_grad and not name.startswith(keep):
                        p.requires_grad_(False)
                        p.grad = None
                        self._frozen.append(name)
                announce("epochs %d to %d train attention and head", trainer.epoch + 1, self.freeze_base)
        elif self._frozen:
            frozen = set(self._frozen)
            for name, p in model.named_parameters():
                if name in frozen:
                    p.requires_grad_(True)
            self._frozen = []
            announce("from epoch %d on all layers train", trainer.epoch + 1)

    def on_train_batch_start(self, trainer: Any) -> None:
        """Keep the statistics of frozen batch norms: the host puts all of them into training mode each epoch."""
        if trainer.epoch >= self.freeze_base:
            return
        from torch.nn.modules.batchnorm import _BatchNorm

        model = _plain(trainer.model)
        keep = _trained_first(model)
        for name, m in model.named_modules():
            if isinstance(m, _BatchNorm) and m.training and not (name + ".").startswith(keep):
                m.eval()


def plan(model: Any, *, freeze_base: int = 0, lr_new: float = 1.0) -> None:
    """Write a schedule into a model before its training.

    Args:
        model: ultralytics' ``YOLO``, a detector, or a model dictionary; changed in place.
        freeze_base: See :class:`Schedule`.
        lr_new: See :class:`Schedule`.

    Raises:
        UsageError: A number that makes no sense.
    """
    Schedule(freeze_base, lr_new)
    while not isinstance(model, dict):
        model = model.yaml if isinstance(getattr(model, "yaml", None), dict) else model.model
    model[KEY] = {"freeze_base": freeze_base, "lr_new": lr_new}


def follow(trainer: Any) -> None:
    """Let an ultralytics trainer do what its model's dictionary says under ``schedule``, also when it resumes."""
    trainer.add_callback("on_pretrain_routine_end", _read)  # the model and the optimizer exist from here on


def _read(trainer: Any) -> None:
    schedule = Schedule.of(getattr(_plain(trainer.model), "yaml", None))
    for event in ("on_train_start", "on_train_epoch_start", "on_train_batch_start"):
        # The host's `YOLO` keeps its trainers' callbacks: those of an earlier training must not act on this one.
        callbacks = trainer.callbacks[event]
        callbacks[:] = [c for c in callbacks if not isinstance(getattr(c, "__self__", None), Schedule)]
        if schedule is not None:
            trainer.add_callback(event, getattr(schedule, event))


def lengthen(optimizer: Any, parameters: list[Any], factor: float) -> None:
    """Let every step of an optimizer move `parameters` `factor` times as far.

    Equal to a learning rate `factor` times as high for every optimizer whose update is proportional to it, with
    weight decay or momentum or without, and independent of how the parameters are grouped.

    Raises:
        UsageError: torch is older than 2.0.
    """
    if not hasattr(optimizer, "register_step_post_hook"):
        raise UsageError("lr_new needs torch 2.0 or later")
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


def _plain(model: Any) -> Any:
    """The detector below DDP and `torch.compile`."""
    model = getattr(model, "module", model)
    return getattr(model, "_orig_mod", model)


def _attention(model: Any) -> tuple[str, ...]:
    from .weights import attention_in

    return tuple(path + "." for path in attention_in(model))


def _trained_first(model: Any) -> tuple[str, ...]:
    """What a frozen base leaves to train: attention and the head, as beginnings of parameter names."""
    return (*_attention(model), f"model.{len(model.model) - 1}.")


def _new_parameters(model: Any) -> list[Any]:
    begin = _attention(model)
    return [p for n, p in model.named_parameters() if begin and n.startswith(begin)]
