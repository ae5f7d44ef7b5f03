"""A training schedule as data: what to do differently, how a YAML, a command line and Python ask for it.

Two numbers, ``freeze_base`` and ``lr_new``; :mod:`.schedule` follows them. This file needs neither torch nor a host.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError, UsageError, did_you_mean

__all__ = ["FREEZE_BASE", "KEY", "VARIABLE", "Schedule", "ask", "frozen_epochs", "plan"]

KEY = "schedule"
VARIABLE = "YOLO_ATTN_SCHEDULE"  # what a command line asks for; the workers of a run on several GPUs inherit it

# Epochs of `--freeze base`: gates find their range in a few, and the rest is left for all layers together.
FREEZE_BASE = 3


@dataclass(frozen=True)
class Schedule:
    """What a training does differently.

    Args:
        freeze_base: For so many epochs only attention and the detection head train. Frozen rows keep their batch
            norm's statistics as well.
        lr_new: The learning rate of attention relative to the rest. Every update of these parameters is this many
            times as long, whatever the optimizer, the warm-up and the scheduler.
        begun: A training follows it already: resumed, that training goes on with it, and no other one takes it over.

    Raises:
        UsageError: A number that makes no sense.
    """

    freeze_base: int = 0
    lr_new: float = 1.0
    begun: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if isinstance(self.freeze_base, bool) or not isinstance(self.freeze_base, int) or self.freeze_base < 0:
            raise UsageError(f"freeze_base is a number of epochs, got {self.freeze_base!r}")
        number = isinstance(self.lr_new, (int, float)) and not isinstance(self.lr_new, bool)
        if not number or not 0 < self.lr_new < float("inf"):
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
            if word not in (*known, "begun"):
                raise ConfigError(
                    f"'{KEY}' has no '{word}'.{did_you_mean(str(word), known)} It has freeze_base, lr_new."
                )
        return cls(**given)


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


def ask(*, freeze_base: int = 0, lr_new: float = 1.0) -> None:
    """Have every training that this process and its children start follow a schedule.

    Raises:
        UsageError: A number that makes no sense.
    """
    os.environ[VARIABLE] = json.dumps(asdict(Schedule(freeze_base, lr_new)))


def frozen_epochs(words: str) -> int | None:
    """Return K for ``base:K``, the default for ``base``, and None for anything else that `--freeze` takes."""
    base, colon, count = words.partition(":")
    if base != "base" or (colon and not count.isdecimal()):
        return None
    return int(count) if colon else FREEZE_BASE
