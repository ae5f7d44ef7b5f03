"""A training schedule as data, and how a YAML, a command line and Python set it.

It is two numbers, ``freeze_base`` and ``lr_new``; :mod:`yolo_attn.training.schedule` applies them. This file needs
neither torch nor a host.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError, UsageError, did_you_mean, shown

__all__ = ["FREEZE_BASE", "KEY", "VARIABLE", "Schedule", "ask", "frozen_epochs", "plan"]

KEY = "schedule"
VARIABLE = "YOLO_ATTN_SCHEDULE"  # set by a command line; inherited by the workers of a run on several GPUs

# Epochs of `--freeze base`: gates find their range in a few; the other epochs train all layers.
FREEZE_BASE = 3


@dataclass(frozen=True)
class Schedule:
    """A schedule for training a detector with attention.

    Args:
        freeze_base: Number of first epochs in which only attention and the detection head train. Frozen layers also
            keep their batch normalization statistics.
        lr_new: Learning rate of attention, as a multiple of that of the other layers. It scales every update of these
            parameters, whatever the optimizer, the warm-up and the scheduler.
        begun: Whether a training already uses it. Only that training continues with it when it is resumed.

    Raises:
        UsageError: A number is out of range.
    """

    freeze_base: int = 0
    lr_new: float = 1.0
    begun: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if isinstance(self.freeze_base, bool) or not isinstance(self.freeze_base, int) or self.freeze_base < 0:
            raise UsageError(f"freeze_base is a number of epochs, got {shown(self.freeze_base)}")
        number = isinstance(self.lr_new, (int, float)) and not isinstance(self.lr_new, bool)
        if not number or not 0 < self.lr_new < float("inf"):
            raise UsageError(f"lr_new is a positive factor, got {shown(self.lr_new)}")

    @classmethod
    def of(cls, d: Mapping[str, Any] | None) -> Schedule | None:
        """Return the schedule of a model dictionary, or None if it has none.

        Raises:
            ConfigError: There is an unknown key under ``schedule``.
            UsageError: A number is out of range.
        """
        given = (d or {}).get(KEY)
        if not given:
            return None
        if not isinstance(given, Mapping):
            raise ConfigError(f"'{KEY}' maps freeze_base and lr_new to numbers, got {shown(given)}")
        known = ("freeze_base", "lr_new")
        for word in given:
            if word not in (*known, "begun"):
                raise ConfigError(
                    f"'{KEY}' has no {shown(word)}.{did_you_mean(str(word)[:80], known)} It has freeze_base, lr_new."
                )
        return cls(**given)


def plan(model: Any, *, freeze_base: int = 0, lr_new: float = 1.0) -> None:
    """Set the schedule of a model, before it is trained.

    Args:
        model: An ``ultralytics.YOLO``, a detector, or a model dictionary; changed in place.
        freeze_base: Number of first epochs in which only attention and the detection head train.
        lr_new: Learning rate of attention, as a multiple of that of the other layers.

    Raises:
        UsageError: A number is out of range, or `model` is none.
    """
    Schedule(freeze_base, lr_new)
    inner = model
    while not isinstance(inner, dict):
        inner = inner.yaml if isinstance(getattr(inner, "yaml", None), dict) else getattr(inner, "model", None)
        if inner is None or isinstance(inner, str):
            raise UsageError(f"plan takes a YOLO, a detector or a model dictionary, got {type(model).__name__}")
    inner[KEY] = {"freeze_base": freeze_base, "lr_new": lr_new}


def ask(*, freeze_base: int = 0, lr_new: float = 1.0) -> None:
    """Set the schedule of every training in this process and its children.

    Args:
        freeze_base: See :class:`Schedule`.
        lr_new: See :class:`Schedule`.

    Raises:
        UsageError: A number is out of range.
    """
    os.environ[VARIABLE] = json.dumps(asdict(Schedule(freeze_base, lr_new)))


def frozen_epochs(words: str) -> int | None:
    """Return the epochs that a value of ``--freeze`` means: K for ``base:K``, a default for ``base``, else None."""
    base, colon, count = words.partition(":")
    if base != "base" or (colon and not count.isdecimal()):
        return None
    return int(count) if colon else FREEZE_BASE
